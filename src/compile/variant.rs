//! Which commands another build of the same compiler, on another kind of host, can run with the same result.
//!
//! Such a *variant* is told the client's own search list and made to forget its own, so what it writes is the same as long as
//! the command line, files of the compiler itself and diagnostics stay out of it. [`variant_exactness`] says no to every
//! command that could show a difference; [`profile_words`] names the words by which the two compilers are to be compared
//! before a variant is trusted with them.

use std::ffi::{OsStr, OsString};

use super::command::{CompileCommand, DirBase};
use super::facts::Feature;
use super::options::{LexicalOption, RequiredKind, Role, SearchOption};
use super::survey::Stage;
use super::words::{Word, Words};

/// Why a command is for the client's own compiler only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum OwnOnly {
    /// Nothing of a source that is not preprocessed was tried on variants.
    #[error("own_only_preprocessed")]
    Preprocessed,
    /// Assembly names the compiler in full, where a variant need not have the same name.
    #[error("own_only_assembly")]
    Assembly,
    /// The command line is in the output.
    #[error("own_only_recorded_command_line")]
    RecordedCommandLine,
    /// The compiler's own representation, its version included.
    #[error("own_only_lto")]
    Lto,
    /// Notes and counters carry stamps of the compiler that made them.
    #[error("own_only_coverage")]
    Coverage,
    /// Files beside the object that say how they came about.
    #[error("own_only_side_files")]
    SideFiles,
    /// Parts of the compiler are named.
    #[error("own_only_compiler_parts")]
    CompilerParts,
    /// Preprocessing in a process of its own, or compiling twice.
    #[error("own_only_unusual_run")]
    UnusualRun,
    /// The compiler says something whenever it runs.
    #[error("own_only_talkative")]
    Talkative,
    /// Directories that are meant relative to where the compiler is.
    #[error("own_only_compiler_prefix")]
    CompilerPrefix,
}

/// How equal the objects of a toolchain's variants are said to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VariantNames {
    /// To the last byte.
    Same,
    /// But for the compiler's name, in full.
    Differ,
}

/// Says whether a variant runs the command exactly as the client's own compiler does.
pub fn variant_exactness(command: &CompileCommand, names: VariantNames) -> Result<(), OwnOnly> {
    const REFUSED: [(Feature, OwnOnly); 18] = [
        (Feature::RecordedSwitches, OwnOnly::RecordedCommandLine),
        (Feature::Lto, OwnOnly::Lto),
        (Feature::Coverage, OwnOnly::Coverage),
        (Feature::ProfileGenerate, OwnOnly::Coverage),
        (Feature::SaveTemps, OwnOnly::SideFiles),
        (Feature::SplitDwarf, OwnOnly::SideFiles),
        (Feature::CallGraph, OwnOnly::SideFiles),
        (Feature::Dump, OwnOnly::SideFiles),
        (Feature::OptRecord, OwnOnly::SideFiles),
        (Feature::AuxInfo, OwnOnly::SideFiles),
        (Feature::DiagnosticsFile, OwnOnly::SideFiles),
        (Feature::AssemblerListing, OwnOnly::SideFiles),
        (Feature::AssemblerFile, OwnOnly::SideFiles),
        (Feature::Plugin, OwnOnly::CompilerParts),
        (Feature::CompareDebug, OwnOnly::UnusualRun),
        (Feature::SeparatePreprocessor, OwnOnly::UnusualRun),
        (Feature::OptInfo, OwnOnly::Talkative),
        (Feature::Progress, OwnOnly::Talkative),
    ];
    let features = command.facts.features;
    if !command.language.is_preprocessed_here() {
        return Err(OwnOnly::Preprocessed);
    }
    if let Some((_, reason)) = REFUSED.iter().find(|(feature, _)| features.has(*feature)) {
        return Err(*reason);
    }
    if features.has(Feature::IncludeTrace) {
        return Err(OwnOnly::Talkative);
    }
    if command.stage == Stage::Assembly {
        if features.has(Feature::VerboseAsm) {
            return Err(OwnOnly::RecordedCommandLine);
        }
        if names == VariantNames::Differ {
            return Err(OwnOnly::Assembly);
        }
    }
    let names_parts = |kind: RequiredKind| {
        matches!(
            kind,
            RequiredKind::Plugin | RequiredKind::Specs | RequiredKind::ExecPrefix
        )
    };
    if command.required_files.iter().any(|file| names_parts(file.kind)) {
        return Err(OwnOnly::CompilerParts);
    }
    let options = &command.preprocess;
    let lists = [&options.bracket_dirs, &options.system_dirs];
    if lists
        .into_iter()
        .flatten()
        .any(|dir| dir.base == DirBase::CompilerPrefix)
    {
        return Err(OwnOnly::CompilerPrefix);
    }
    let own_list = |word: Word<'_>| match word {
        Word::Option { row, .. } => matches!(row.role, Role::Search(SearchOption::Builtin)),
        _ => false,
    };
    if Words::new(&command.argv).any(own_list) {
        return Err(OwnOnly::CompilerPrefix);
    }
    Ok(())
}

/// Returns the words that shape macros or code, in order: what a variant has to answer as the client's own compiler does.
///
/// Directories, definitions, names of files and diagnostics are left out: they are handed on as they are, and mean the same to
/// both.
pub fn profile_words(command: &CompileCommand) -> Vec<OsString> {
    let mut words = Vec::new();
    for word in Words::new(&command.argv) {
        if let Word::Option { row, words: whole, .. } = word
            && shapes_code(row.role)
        {
            words.extend_from_slice(whole);
        }
    }
    words
}

fn shapes_code(role: Role) -> bool {
    match role {
        Role::Codegen | Role::Optimize | Role::FamilyF | Role::FamilyM | Role::Debug | Role::Charset => true,
        // Of the features only those that no file goes with.
        Role::Feature(feature) => matches!(feature, Feature::Sanitizer | Feature::Analyzer | Feature::DebugToggled),
        Role::Without(_) => true,
        Role::Lexical(lexical) => matches!(
            lexical,
            LexicalOption::Standard | LexicalOption::Ansi | LexicalOption::Undef | LexicalOption::Traditional
        ),
        _ => false,
    }
}

/// Returns the words that make a variant search what the client's own compiler searches by itself, to stand in front of
/// the command's own.
///
/// `search` is the client's list as its compiler spells it; `preinclude` the header that it includes unasked, which the
/// variant would leave out without a search list of its own.
pub fn variant_words(search: &[OsString], preinclude: Option<&OsStr>) -> Vec<OsString> {
    let mut words = vec![OsString::from("-nostdinc")];
    for directory in search {
        words.extend(["-idirafter".into(), directory.clone()]);
    }
    if let Some(header) = preinclude {
        words.extend(["-include".into(), header.to_owned()]);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{Driver, Verdict, parse};

    fn command(text: &str) -> CompileCommand {
        let argv: Vec<OsString> = text.split_whitespace().map(OsString::from).collect();
        match parse(&argv, &[], Driver::C, &mut |_| Err(std::io::ErrorKind::NotFound.into())) {
            Verdict::Remote(command) => *command,
            Verdict::Local(local) => panic!("{text}: {local:?}"),
        }
    }

    #[test]
    fn commands_that_show_the_compiler_keep_their_own() {
        let rows = [
            ("-O2 -g -MMD -c a.c", Ok(())),
            ("-O2 -fPIC -fstack-usage -Wall -c a.c", Ok(())),
            ("-c a.S", Ok(())),
            ("-S a.c", Ok(())),
            ("-fverbose-asm -c a.c", Ok(())),
            ("-fsanitize=undefined -c a.c", Ok(())),
            ("-fverbose-asm -S a.c", Err(OwnOnly::RecordedCommandLine)),
            ("-frecord-gcc-switches -c a.c", Err(OwnOnly::RecordedCommandLine)),
            ("-flto -c a.c", Err(OwnOnly::Lto)),
            ("-flto -fno-lto -c a.c", Ok(())),
            ("--coverage -c a.c", Err(OwnOnly::Coverage)),
            ("-fprofile-arcs -c a.c", Err(OwnOnly::Coverage)),
            ("-save-temps -c a.c", Err(OwnOnly::SideFiles)),
            ("-g -gsplit-dwarf -c a.c", Err(OwnOnly::SideFiles)),
            ("-fdump-tree-all -c a.c", Err(OwnOnly::SideFiles)),
            ("-Wa,-al=x -c a.c", Err(OwnOnly::SideFiles)),
            ("-fplugin=x.so -c a.c", Err(OwnOnly::CompilerParts)),
            ("-specs=x -c a.c", Err(OwnOnly::CompilerParts)),
            ("-B x -c a.c", Err(OwnOnly::CompilerParts)),
            ("-fcompare-debug -c a.c", Err(OwnOnly::UnusualRun)),
            ("-no-integrated-cpp -c a.c", Err(OwnOnly::UnusualRun)),
            ("-H -c a.c", Err(OwnOnly::Talkative)),
            ("-Q -c a.c", Err(OwnOnly::Talkative)),
            ("-iwithprefix x -c a.c", Err(OwnOnly::CompilerPrefix)),
            ("-imultilib x -c a.c", Err(OwnOnly::CompilerPrefix)),
            ("-c a.i", Err(OwnOnly::Preprocessed)),
            ("-c a.s", Err(OwnOnly::Preprocessed)),
        ];
        for (text, expected) in rows {
            let found = variant_exactness(&command(text), VariantNames::Same);
            assert_eq!(found, expected, "{text}");
        }
        let assembly = variant_exactness(&command("-S a.c"), VariantNames::Differ);
        assert_eq!(assembly, Err(OwnOnly::Assembly));
        assert_eq!(
            variant_exactness(&command("-c a.c"), VariantNames::Differ),
            Ok(()),
            "objects may differ in `.comment`"
        );
    }

    #[test]
    fn the_profile_is_asked_by_what_shapes_code() {
        let check = |text: &str, expected: &str| {
            let words = profile_words(&command(text));
            let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
            assert_eq!(words.join(" "), expected, "{text}");
        };
        check(
            "-O2 -g3 -mcpu=arm926ej-s --param x=1 -std=gnu99 -fPIC -pthread -c a.c",
            "-O2 -g3 -mcpu=arm926ej-s --param x=1 -std=gnu99 -fPIC -pthread",
        );
        check(
            "-DX -UX -Ix -isystem x -include x.h -Wall -MMD -MF x.d -o x.o -c a.c",
            "",
        );
        check(
            "-fstack-usage -ffile-prefix-map=/x=/y -Wa,-mx -Wp,-DX --sysroot=/x -c a.c",
            "",
        );
        check(
            "-fsanitize=undefined -fno-lto -ansi -c a.c",
            "-fsanitize=undefined -fno-lto -ansi",
        );
    }

    #[test]
    fn a_variant_is_told_the_clients_list_in_its_order() {
        let search = ["/gcc/include", "/usr/include"].map(OsString::from);
        let words = variant_words(&search, Some(OsStr::new("stdc-predef.h")));
        let expected = "-nostdinc -idirafter /gcc/include -idirafter /usr/include -include stdc-predef.h";
        assert_eq!(words, expected.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert_eq!(variant_words(&[], None), ["-nostdinc"]);
    }
}
