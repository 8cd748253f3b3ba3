//! Which list of dependencies a command asks for: kind, file and targets, as gcc would settle them.
//!
//! Two ways lead there and gcc treats them apart: options of the driver (`-MD -MF x`), and words handed to the compiler
//! proper (`-Wp,-MD,x`), which come later, win, and do not know of `-o`. Checked against gcc 12; the rules with `-o`
//! are older than gcc 4.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::command::{DependencyKind, DependencyRequest, DependencyTarget, Phony, Quoting, with_suffix};
use super::file_name::{last_dot, split_directories};
use super::options::{self, DependencyOption, Role};
use super::survey::Plan;

/// What the options of the `-M` family say, while they are read.
#[derive(Debug, Default)]
pub(super) struct DependencyOptions {
    all: bool,
    user: bool,
    file: Option<OsString>,
    raw_targets: Vec<OsString>,
    quoted_targets: Vec<OsString>,
    phony: bool,
    preprocessor_kind: Option<DependencyKind>,
    preprocessor_file: Option<OsString>,
    preprocessor_targets: Vec<DependencyTarget>,
}

impl DependencyOptions {
    /// Takes an option of the driver.
    pub fn take(&mut self, option: DependencyOption, value: &OsStr) {
        match option {
            DependencyOption::All => self.all = true,
            DependencyOption::User => self.user = true,
            DependencyOption::File => self.file = Some(value.to_owned()),
            DependencyOption::RawTarget => self.raw_targets.push(value.to_owned()),
            DependencyOption::QuotedTarget => self.quoted_targets.push(value.to_owned()),
            DependencyOption::Phony => self.phony = true,
        }
    }

    /// Returns the kind that a word for the compiler proper asks for, when it is one that takes a file.
    pub fn kind_of_preprocessor_word(word: &OsStr) -> Option<DependencyKind> {
        match options::find(word)?.row.role {
            Role::Dependency(DependencyOption::All) => Some(DependencyKind::All),
            Role::Dependency(DependencyOption::User) => Some(DependencyKind::User),
            _ => None,
        }
    }

    /// Takes `-Wp,-MD,FILE` or `-Wp,-MMD,FILE`.
    pub fn take_preprocessor_list(&mut self, kind: DependencyKind, file: &OsStr) {
        self.preprocessor_kind = Some(kind);
        self.preprocessor_file = Some(file.to_owned());
    }

    /// Takes another option of the family out of `-Wp,`.
    pub fn take_from_preprocessor(&mut self, option: DependencyOption, value: &OsStr) {
        let target = |quoting| DependencyTarget {
            text: value.to_owned(),
            quoting,
        };
        match option {
            DependencyOption::File => self.preprocessor_file = Some(value.to_owned()),
            DependencyOption::RawTarget => self.preprocessor_targets.push(target(Quoting::Raw)),
            DependencyOption::QuotedTarget => {
                self.preprocessor_targets.push(target(Quoting::Quoted));
            }
            DependencyOption::Phony => self.phony = true,
            DependencyOption::All | DependencyOption::User => {}
        }
    }

    /// Tells whether anything but the kind of list was said.
    fn shapes_a_list(&self) -> bool {
        self.phony
            || self.file.is_some()
            || self.preprocessor_file.is_some()
            || !self.raw_targets.is_empty()
            || !self.quoted_targets.is_empty()
            || !self.preprocessor_targets.is_empty()
    }

    /// Settles the request for the compile that `plan` describes.
    ///
    /// An error is the name of a file that is not regular, or nothing: then gcc itself will complain.
    pub fn resolve(self, plan: &Plan<'_>) -> Result<Option<DependencyRequest>, Option<OsString>> {
        if !plan.language.is_preprocessed_here() {
            return Ok(None);
        }
        let driver_kind = if self.user {
            Some(DependencyKind::User)
        } else {
            self.all.then_some(DependencyKind::All)
        };
        let Some(kind) = self.preprocessor_kind.or(driver_kind) else {
            return if self.shapes_a_list() { Err(None) } else { Ok(None) };
        };
        let file = match (self.preprocessor_file, self.file) {
            (Some(file), _) | (None, Some(file)) => file,
            (None, None) => default_file(plan).into_os_string(),
        };
        if matches!(file.as_bytes(), b"" | b"-") || file.as_bytes().starts_with(b"/dev/") {
            return Err(Some(file));
        }
        let mut targets: Vec<DependencyTarget> = Vec::new();
        let mut add = |texts: Vec<OsString>, quoting| {
            targets.extend(texts.into_iter().map(|text| DependencyTarget { text, quoting }));
        };
        if self.quoted_targets.is_empty()
            && self.raw_targets.is_empty()
            && driver_kind.is_some()
            && let Some(output) = plan.output
        {
            add(vec![output.to_owned()], Quoting::Quoted);
        }
        add(self.quoted_targets, Quoting::Quoted);
        add(self.raw_targets, Quoting::Raw);
        targets.extend(self.preprocessor_targets);
        if targets.is_empty() {
            targets.push(DependencyTarget {
                text: default_target(plan.source),
                quoting: Quoting::Quoted,
            });
        }
        Ok(Some(DependencyRequest {
            kind,
            file: PathBuf::from(file),
            targets,
            phony: if self.phony { Phony::Yes } else { Phony::No },
        }))
    }
}

/// Beside the output, or named after the source in the working directory.
fn default_file(plan: &Plan<'_>) -> PathBuf {
    let Some(output) = plan.output else {
        return with_suffix(plan.source, ".d");
    };
    let bytes = output.as_bytes();
    let (_, name) = split_directories(bytes);
    // Unlike with sources, a leading dot counts as the start of a suffix.
    let end = bytes.len() - last_dot(name).map_or(0, |dot| name.len() - dot);
    let mut file = bytes[..end].to_vec();
    file.extend_from_slice(b".d");
    PathBuf::from(OsString::from_vec(file))
}

/// The source's name without directories, its suffix replaced, whatever the stage.
fn default_target(source: &OsStr) -> OsString {
    let (_, name) = split_directories(source.as_bytes());
    let end = last_dot(name).unwrap_or(name.len());
    let mut target = name[..end].to_vec();
    target.extend_from_slice(b".o");
    OsString::from_vec(target)
}
