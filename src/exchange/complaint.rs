//! What went wrong, in the form in which every `rdcc` command tells it: the error, its causes, and what to type next.
//!
//! A value only; `client/` and `admin/` print it. Invariant: rendered text ends in a newline and every line of it can be
//! told from a compiler's words by its beginning.

use std::fmt;

/// A message for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Complaint {
    /// What cannot be done, with the name of the thing; lower case, no full stop.
    pub error: String,
    /// Why, from near to far.
    pub causes: Vec<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Complaint {
    /// Makes a complaint without cause and hint.
    pub fn new(error: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            causes: Vec::new(),
            hint: None,
        }
    }

    /// Makes a complaint about `error`, with the errors behind it as causes.
    pub fn from_error(error: &dyn std::error::Error) -> Self {
        let mut complaint = Self::new(error.to_string());
        let mut next = error.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            // Libraries wrap an error in another that says the same.
            if complaint.causes.last().unwrap_or(&complaint.error) != &text {
                complaint.causes.push(text);
            }
            next = cause.source();
        }
        complaint
    }

    /// Adds the farthest cause so far.
    #[must_use]
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "rdcc: error: {}", self.error)?;
        for cause in &self.causes {
            writeln!(f, "  cause: {cause}")?;
        }
        match &self.hint {
            Some(hint) => writeln!(f, "  hint: {hint}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_causes_and_hint_stand_on_lines_of_their_own() {
        let complaint = Complaint::new("no worker offers toolchain `arm926`")
            .because("3 workers connected, none has it")
            .hint("run `rdcc toolchain push toolchains/arm926.toml`");
        assert_eq!(
            complaint.to_string(),
            "rdcc: error: no worker offers toolchain `arm926`\n  cause: 3 workers connected, none has it\n  \
             hint: run `rdcc toolchain push toolchains/arm926.toml`\n"
        );
    }
}
