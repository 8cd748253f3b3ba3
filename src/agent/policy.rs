//! What of the client's surroundings a job takes along, and when they keep it here: environment and locale.
//!
//! A job's environment is made of what the compiler reads and nothing else: a variable too many makes two equal jobs
//! differ, one too few makes the worker's compile another one than the local one. The locale shapes diagnostics only, but
//! those have to be the same to the byte: a locale in which the compiler says the same as in `C.UTF-8` is replaced by
//! that, which every worker can be given; any other stays, and a job that prints something in it is done again locally.
//! Pure: variables and probes' output are handed in.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::compile::is_relevant_variable;

/// A locale's name by category, as the C library would take it from the environment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocaleNames {
    /// `LC_CTYPE`: character set, and with it the shape of quotation marks.
    pub ctype: OsString,
    /// `LC_MESSAGES`: language.
    pub messages: OsString,
    /// `LANGUAGE`: languages in order, stronger than `messages`.
    pub language: OsString,
}

/// How the client's locale is dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Locale {
    /// The compiler speaks as in `C`: the variables go along as they are, and mean nothing at the worker either.
    Plain,
    /// The compiler speaks as in `C.UTF-8`.
    Utf8,
    /// The compiler speaks otherwise.
    Foreign,
}

/// What the compiler said in three locales, for one and the same mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocaleProbe {
    /// In the client's.
    pub client: Vec<u8>,
    /// In `C`.
    pub plain: Vec<u8>,
    /// In `C.UTF-8`.
    pub utf8: Vec<u8>,
}

/// Returns the locale that the environment asks for; `None` when that is `C`.
pub fn locale_names(env: &[(OsString, OsString)]) -> Option<LocaleNames> {
    let value = |name: &str| {
        env.iter()
            .find(|(other, value)| other == name && !value.is_empty())
            .map(|(_, value)| value.clone())
    };
    let category = |name: &str| {
        value("LC_ALL")
            .or_else(|| value(name))
            .or_else(|| value("LANG"))
            .filter(|locale| !is_plain(locale))
    };
    let names = LocaleNames {
        ctype: category("LC_CTYPE").unwrap_or_default(),
        messages: category("LC_MESSAGES").unwrap_or_default(),
        language: value("LANGUAGE").unwrap_or_default(),
    };
    // In the locale `C` nothing is translated, whatever LANGUAGE says.
    (!names.ctype.is_empty() || !names.messages.is_empty()).then_some(names)
}

fn is_plain(locale: &OsStr) -> bool {
    matches!(locale.as_bytes(), b"C" | b"POSIX")
}

/// Judges a locale by what the compiler said in it.
pub fn judge_locale(probe: &LocaleProbe) -> Locale {
    if probe.client == probe.plain {
        Locale::Plain
    } else if probe.client == probe.utf8 {
        Locale::Utf8
    } else {
        Locale::Foreign
    }
}

/// Makes a job's environment out of the client's, sorted by name.
///
/// `listed` are names that the toolchain's file adds. `dependencies` is the value of `SUNPRO_DEPENDENCIES` when the
/// compiler is to list what it reads that way.
pub fn job_environment(
    env: &[(OsString, OsString)],
    listed: &[String],
    locale: Locale,
    dependencies: Option<&OsStr>,
) -> Vec<(OsString, OsString)> {
    let taken = |name: &OsStr| {
        let by_locale = locale == Locale::Utf8 && is_locale_variable(name);
        let relevant =
            name == "PATH" || is_relevant_variable(name) || listed.iter().any(|listed| name == listed.as_str());
        relevant && !by_locale
    };
    let mut job: Vec<(OsString, OsString)> = env.iter().filter(|(name, _)| taken(name)).cloned().collect();
    if locale == Locale::Utf8 {
        job.push(("LC_ALL".into(), "C.UTF-8".into()));
    }
    if let Some(value) = dependencies {
        job.push(("SUNPRO_DEPENDENCIES".into(), value.to_owned()));
    }
    // The first of several variables of one name is the one that getenv finds; the sort keeps their order.
    job.sort_by(|a, b| a.0.cmp(&b.0));
    job.dedup_by(|later, first| later.0 == first.0);
    job
}

fn is_locale_variable(name: &OsStr) -> bool {
    name == "LANG" || name == "LANGUAGE" || name.as_bytes().starts_with(b"LC_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn names(ctype: &str, messages: &str, language: &str) -> Option<LocaleNames> {
        Some(LocaleNames {
            ctype: ctype.into(),
            messages: messages.into(),
            language: language.into(),
        })
    }

    #[test]
    fn locale_follows_the_c_librarys_order() {
        type Row<'a> = (&'a [(&'a str, &'a str)], Option<LocaleNames>);
        let rows: [Row<'_>; 8] = [
            (&[], None),
            (&[("LANG", "C")], None),
            (&[("LANG", "de_DE.UTF-8"), ("LC_ALL", "C")], None),
            (&[("LANG", "C"), ("LANGUAGE", "de")], None),
            (&[("LANG", "de_DE.UTF-8")], names("de_DE.UTF-8", "de_DE.UTF-8", "")),
            (
                &[("LANG", "de_DE.UTF-8"), ("LC_ALL", "")],
                names("de_DE.UTF-8", "de_DE.UTF-8", ""),
            ),
            (
                &[("LANG", "de_DE.UTF-8"), ("LC_MESSAGES", "POSIX")],
                names("de_DE.UTF-8", "", ""),
            ),
            (
                &[("LC_ALL", "C.UTF-8"), ("LANGUAGE", "de")],
                names("C.UTF-8", "C.UTF-8", "de"),
            ),
        ];
        for (variables, expected) in rows {
            assert_eq!(locale_names(&env(variables)), expected, "{variables:?}");
        }
    }

    #[test]
    fn locale_is_judged_by_what_the_compiler_says_in_it() {
        let probe = |client: &str| LocaleProbe {
            client: client.into(),
            plain: "'x'".into(),
            utf8: "‘x’".into(),
        };
        assert_eq!(judge_locale(&probe("'x'")), Locale::Plain);
        assert_eq!(judge_locale(&probe("‘x’")), Locale::Utf8);
        assert_eq!(judge_locale(&probe("»x«")), Locale::Foreign);
    }

    #[test]
    fn job_takes_what_the_compiler_reads_and_nothing_else() {
        let client = env(&[
            ("PWD", "/src"),
            ("PATH", "/bin"),
            ("HOME", "/home/u"),
            ("SECRET", "x"),
            ("BOARD", "arietta"),
            ("LANG", "en_US.UTF-8"),
            ("LC_MESSAGES", "en_US.UTF-8"),
        ]);
        let listed = ["BOARD".to_owned()];
        assert_eq!(
            job_environment(&client, &listed, Locale::Foreign, None),
            env(&[
                ("BOARD", "arietta"),
                ("LANG", "en_US.UTF-8"),
                ("LC_MESSAGES", "en_US.UTF-8"),
                ("PATH", "/bin"),
                ("PWD", "/src"),
            ])
        );
        assert_eq!(
            job_environment(&client, &[], Locale::Utf8, Some(OsStr::new("/d x"))),
            env(&[
                ("LC_ALL", "C.UTF-8"),
                ("PATH", "/bin"),
                ("PWD", "/src"),
                ("SUNPRO_DEPENDENCIES", "/d x"),
            ])
        );
    }
}
