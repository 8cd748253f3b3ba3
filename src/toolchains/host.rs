//! The kind of machine that can run a toolchain's programs: `x86_64-linux`, `armv7-linux`, ….
//!
//! This names the *user space* a binary was made for, not what the kernel reports: a 32-bit board image on a 64-bit
//! kernel is `armv7-linux`. Whether a particular CPU can execute a bundle is found out by running it, not here.

use std::fmt;
use std::str::FromStr;

/// Architectures that a toolchain file may name. The list is what Rust and Debian or Void both build for.
const ARCHITECTURES: &[&str] = &[
    "aarch64",
    "armv5",
    "armv6",
    "armv7",
    "i686",
    "powerpc64le",
    "riscv64",
    "x86_64",
];

/// A kind of machine, as toolchain files and manifests spell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(&'static str);

/// Text that names no kind of machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a kind of machine; use one of {}", Host::all())]
pub struct HostError {
    text: String,
}

impl Host {
    /// Returns the kind of machine that this program was built for, which is the kind of program it can start.
    pub const fn current() -> Self {
        Self(if cfg!(target_arch = "x86_64") {
            "x86_64"
        } else if cfg!(target_arch = "x86") {
            "i686"
        } else if cfg!(target_arch = "aarch64") {
            "aarch64"
        } else if cfg!(target_arch = "riscv64") {
            "riscv64"
        } else if cfg!(target_arch = "powerpc64") {
            "powerpc64le"
        } else if cfg!(target_feature = "v7") {
            "armv7"
        } else if cfg!(target_feature = "v6") {
            "armv6"
        } else {
            "armv5"
        })
    }

    /// Returns every spelling that a toolchain file may use, for messages.
    pub fn all() -> String {
        let quoted: Vec<String> = ARCHITECTURES.iter().map(|arch| format!("`{arch}-linux`")).collect();
        quoted.join(", ")
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-linux", self.0)
    }
}

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        text.strip_suffix("-linux")
            .and_then(|arch| ARCHITECTURES.iter().find(|known| **known == arch))
            .map(|arch| Self(arch))
            .ok_or_else(|| HostError {
                text: text.chars().take(80).collect(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_architecture_prints_and_parses() {
        for arch in ARCHITECTURES {
            let text = format!("{arch}-linux");
            assert_eq!(text.parse::<Host>().unwrap().to_string(), text);
        }
        let here = Host::current();
        assert_eq!(here.to_string().parse(), Ok(here));
    }

    #[test]
    fn other_spellings_are_refused_with_the_list() {
        for text in ["", "x86_64", "amd64-linux", "armv7-linux-gnu", "x86_64-darwin"] {
            let error = text.parse::<Host>().unwrap_err().to_string();
            assert!(error.contains("`armv7-linux`"), "{error}");
        }
    }
}
