//! In which of the locales that a worker can be given does the local compiler say what it says in the user's own?
//!
//! Asked once per toolchain and locale, with two mistakes that bring up every catalogue there is: gcc's own, the C
//! library's, the assembler's. What the answers mean is for [`policy::judge_locale`] to say.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;

use super::compiler_run::{CompilerRun, CompilerRunner};
use super::policy::{self, Locale, LocaleNames, LocaleProbe};
use crate::ids::ToolchainId;

/// Files of the locale `C.UTF-8`, in glibc's own place for them: what a program needs to speak in it.
const UTF8_FILES: [&str; 2] = [
    "/usr/lib/locale/C.utf8/LC_CTYPE",
    "/usr/lib/locale/C.utf8/LC_MESSAGES/SYS_LC_MESSAGES",
];
/// Two questions a toolchain and locale; a user has one or two of each.
const LOCALES_MAX: usize = 64;
/// An answer takes milliseconds; this is for a machine on its knees.
const ANSWER_WAIT: Duration = Duration::from_secs(20);

type Answer = Arc<OnceCell<Locale>>;

/// Remembers which locale is which.
#[derive(Debug, Default)]
pub struct LocaleProbes {
    known: Mutex<HashMap<(ToolchainId, LocaleNames), Answer>>,
}

impl LocaleProbes {
    /// Tells how the locale that `env` asks for is dealt with, asking `compiler` when it is a new one.
    pub async fn locale(
        &self,
        toolchain: ToolchainId,
        compiler: &Path,
        env: &[(OsString, OsString)],
        runner: &CompilerRunner,
    ) -> Locale {
        let Some(names) = policy::locale_names(env) else {
            return Locale::Plain;
        };
        let answer = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= LOCALES_MAX {
                known.clear();
            }
            known.entry((toolchain, names.clone())).or_default().clone()
        };
        *answer.get_or_init(|| probe(compiler, env, &names, runner)).await
    }
}

/// Returns the files that a worker needs to speak in `C.UTF-8`; empty where this machine has none to give.
pub fn utf8_files() -> Vec<PathBuf> {
    let files: Vec<PathBuf> = UTF8_FILES.iter().map(PathBuf::from).collect();
    if files.iter().all(|file| file.is_file()) {
        files
    } else {
        Vec::new()
    }
}

async fn probe(compiler: &Path, env: &[(OsString, OsString)], names: &LocaleNames, runner: &CompilerRunner) -> Locale {
    let plain = [("LC_ALL", OsString::from("C"))];
    let utf8 = [("LC_ALL", OsString::from("C.UTF-8"))];
    let client = [
        ("LC_CTYPE", names.ctype.clone()),
        ("LC_MESSAGES", names.messages.clone()),
        ("LANGUAGE", names.language.clone()),
    ];
    let probe = LocaleProbe {
        client: say(compiler, env, &client, runner).await,
        plain: say(compiler, env, &plain, runner).await,
        utf8: say(compiler, env, &utf8, runner).await,
    };
    match policy::judge_locale(&probe) {
        Locale::Utf8 if utf8_files().is_empty() => Locale::Foreign,
        locale => locale,
    }
}

/// Makes the compiler complain in a locale, once by itself and once by its assembler.
async fn say(
    compiler: &Path,
    env: &[(OsString, OsString)],
    locale: &[(&str, OsString)],
    runner: &CompilerRunner,
) -> Vec<u8> {
    let mistakes: [(&[&str], &[u8]); 2] = [
        (&["-frdcc-asks", "-c", "/nonexistent/rdcc.c"], b""),
        (&["-x", "assembler", "-c", "-", "-o", "/dev/null"], b".rdcc_asks\n"),
    ];
    // Where a category is not named, the environment's own LOCPATH and NLSPATH still count.
    let mut env: Vec<(OsString, OsString)> = env
        .iter()
        .filter(|(name, _)| name == "PATH" || name == "LOCPATH" || name == "NLSPATH")
        .cloned()
        .collect();
    env.extend(
        locale
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| ((*name).into(), value.clone())),
    );
    let mut said = Vec::new();
    for (words, stdin) in mistakes {
        let run = CompilerRun {
            program: compiler.to_owned(),
            argv0: compiler.as_os_str().to_owned(),
            words: words.iter().map(OsString::from).collect(),
            cwd: "/".into(),
            env: env.clone(),
            stdin: stdin.to_vec(),
        };
        // A compiler that cannot be asked says the same in every locale: nothing.
        if let Ok(answer) = runner.run(run, ANSWER_WAIT).await {
            said.extend(answer.stderr);
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::toolchains::capture::tests::write_program;

    fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    /// A compiler with catalogues for German, and quotation marks for UTF-8.
    const COMPILER: &str = "#!/bin/sh\n\
        echo x >> $0.asked\n\
        case $LC_ALL$LC_MESSAGES in *de*) w=falsch;; *) w=wrong;; esac\n\
        case $LC_ALL$LC_CTYPE in *UTF-8*) echo \"«$w»\" >&2;; *) echo \"'$w'\" >&2;; esac\n";

    #[tokio::test]
    async fn locales_are_told_apart_and_asked_for_once() {
        let dir = tempfile::tempdir().unwrap();
        let compiler = dir.path().join("gcc");
        write_program(&compiler, COMPILER.as_bytes());
        let asked = || std::fs::read(dir.path().join("gcc.asked")).map_or(0, |text| text.len() / 2);
        let (probes, runner) = (LocaleProbes::default(), CompilerRunner::new(2));
        let utf8 = if utf8_files().is_empty() {
            Locale::Foreign
        } else {
            Locale::Utf8
        };
        let rows = [
            (env(&[]), Locale::Plain, 0),
            (env(&[("LANG", "C")]), Locale::Plain, 0),
            (env(&[("LANG", "en_US.UTF-8")]), utf8, 6),
            (env(&[("LANG", "en_US.UTF-8"), ("HOME", "/x")]), utf8, 6),
            (env(&[("LANG", "en_US.ISO-8859-1")]), Locale::Plain, 12),
            (env(&[("LC_ALL", "de_DE.UTF-8")]), Locale::Foreign, 18),
        ];
        for (env, expected, questions) in rows {
            let locale = probes
                .locale(ToolchainId(Digest::of(b"t")), &compiler, &env, &runner)
                .await;
            assert_eq!((locale, asked()), (expected, questions), "{env:?}");
        }
    }
}
