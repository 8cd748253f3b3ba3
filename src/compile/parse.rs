//! From a command line to a [`Verdict`]: one compile that can go elsewhere, or the reason why not.
//!
//! One pass over the words, each looked up once; the words for the preprocessor (`-Wp,`, `-Xpreprocessor`) are gone
//! through at the end, since gcc passes them on behind everything else. Reads nothing but the response files that are
//! handed in. Invariant: whatever the parser is not sure about is local.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::assembler::AssemblerWords;
use super::command::*;
use super::dependencies::DependencyOptions;
use super::environment;
use super::facts::{DebugLevel, Facts, Feature, Optimization};
use super::language::Driver;
use super::options::{self, LexicalOption, RequiredKind, Role, SearchOption};
use super::reason::LocalReason;
use super::response_file;
use super::rewrite::split_list;
use super::survey::{Plan, Survey};
use super::words::{Word, Words};

/// What to do with a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may be compiled elsewhere.
    Remote(Box<CompileCommand>),
    /// It has to run here.
    Local(LocalCommand),
}

/// A command that has to run here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalCommand {
    /// Why.
    pub reason: LocalReason,
    /// The word, file or variable that gave the reason, where there is one.
    pub detail: Option<OsString>,
}

impl LocalCommand {
    fn new(reason: LocalReason, detail: Option<&OsStr>) -> Self {
        Self {
            reason,
            detail: detail.map(OsStr::to_owned),
        }
    }
}

/// Says what `argv` (without the driver's name) asks of the compiler.
///
/// `env` is the command's environment. `read` returns the content of a response file, whose name may be relative to
/// the command's working directory.
pub fn parse(
    argv: &[OsString],
    env: &[(OsString, OsString)],
    driver: Driver,
    read: &mut dyn FnMut(&Path) -> io::Result<Vec<u8>>,
) -> Verdict {
    match parse_remote(argv, env, driver, read) {
        Ok(command) => Verdict::Remote(Box::new(command)),
        Err(local) => Verdict::Local(local),
    }
}

fn parse_remote(
    argv: &[OsString],
    env: &[(OsString, OsString)],
    driver: Driver,
    read: &mut dyn FnMut(&Path) -> io::Result<Vec<u8>>,
) -> Result<CompileCommand, LocalCommand> {
    let expanded = response_file::expand(argv, read).map_err(|error| LocalCommand {
        reason: LocalReason::ResponseFile,
        detail: Some(error.to_string().into()),
    })?;
    let mut survey = Survey::new(driver);
    let mut details = Details::default();
    for word in Words::new(&expanded.argv) {
        survey.take(&word);
        details.take(&word);
    }
    let plan = survey
        .finish()
        .map_err(|(reason, word)| LocalCommand::new(reason, word))?;
    details.take_preprocessor_words()?;
    details.take_assembler_words()?;
    if let Some((reason, name)) = environment::objection(env) {
        return Err(LocalCommand::new(reason, Some(name)));
    }
    if details.facts.features.names_temporary_files()
        && let Some(name) = environment::temporary_directory(env)
    {
        return Err(LocalCommand::new(LocalReason::EnvTemporaryDirectory, Some(name)));
    }
    details.preprocess.environment = environment::include_dirs(env, plan.language);
    let command = details.into_command(driver, &plan)?;
    Ok(CompileCommand {
        argv: expanded.argv,
        response_files: expanded.files,
        ..command
    })
}

/// What the words say, while they are read.
#[derive(Debug, Default)]
struct Details {
    preprocess: PreprocessOptions,
    forced_headers: Vec<ForcedInclude>,
    /// `-iwithprefixbefore`: gcc passes these on behind all `-I`.
    bracket_dirs_late: Vec<SearchDir>,
    /// What stood before `-I-`.
    quote_dirs_split: Vec<SearchDir>,
    iprefix: Option<OsString>,
    dependencies: DependencyOptions,
    preprocessor_words: Vec<OsString>,
    assembler: AssemblerWords,
    assembler_dirs: Vec<PathBuf>,
    required_files: Vec<RequiredFile>,
    facts: Facts,
}

impl Details {
    fn take(&mut self, word: &Word<'_>) {
        if let Word::Option { row, value, words } = *word {
            if row.role.shapes_predefined() {
                self.preprocess.predefined_words.extend_from_slice(words);
            }
            self.take_option(row.role, value.unwrap_or_default());
        }
    }

    fn take_option(&mut self, role: Role, value: &OsStr) {
        match role {
            Role::Dependency(option) => self.dependencies.take(option, value),
            Role::Macro(action) => self.preprocess.macros.push(MacroOption {
                action,
                text: value.to_owned(),
            }),
            Role::Search(option) => self.take_search(option, value),
            Role::Imacros => {
                let file = ForcedInclude::Macros(value.to_owned());
                self.preprocess.forced.push(file);
            }
            Role::Include => {
                let file = ForcedInclude::Header(value.to_owned());
                self.forced_headers.push(file);
            }
            Role::Lexical(option) => self.take_lexical(option, value),
            Role::Reads(kind) => self.require(kind, value),
            Role::PreprocessorList => self.preprocessor_words.extend(split_list(value)),
            Role::PreprocessorWord => self.preprocessor_words.push(value.to_owned()),
            Role::AssemblerList => self.assembler.extend(split_list(value)),
            Role::AssemblerWord => self.assembler.extend([value.to_owned()]),
            Role::Optimize => self.facts.optimization = Optimization::of(value.as_bytes()),
            Role::Debug => self.facts.debug = self.facts.debug.after(value.as_bytes()),
            Role::Feature(feature) => self.take_feature(feature),
            Role::InputCharset => self.take_feature(Feature::InputCharset),
            Role::Without(feature) => self.facts.features.remove(feature),
            _ => {}
        }
    }

    fn take_feature(&mut self, feature: Feature) {
        self.facts.features.insert(feature);
        if feature == Feature::SplitDwarf {
            self.facts.debug = self.facts.debug.after(b"split-dwarf");
        }
    }

    fn take_search(&mut self, option: SearchOption, value: &OsStr) {
        let dir = || SearchDir {
            path: value.to_owned(),
            base: DirBase::Given,
        };
        let options = &mut self.preprocess;
        match option {
            SearchOption::Bracket if value.as_bytes() == b"-" => self.split_quote_dirs(),
            SearchOption::Barrier => self.split_quote_dirs(),
            SearchOption::Bracket => options.bracket_dirs.push(dir()),
            SearchOption::Quote => options.quote_dirs.push(dir()),
            SearchOption::System => options.system_dirs.push(dir()),
            SearchOption::After => options.after_dirs.push(dir()),
            SearchOption::Embed => options.embed_dirs.push(dir()),
            SearchOption::Prefix => self.iprefix = Some(value.to_owned()),
            SearchOption::WithPrefix => {
                let dir = self.prefixed(value);
                self.preprocess.system_dirs.push(dir);
            }
            SearchOption::WithPrefixBefore => {
                let dir = self.prefixed(value);
                self.bracket_dirs_late.push(dir);
            }
            SearchOption::Sysroot => options.sysroot = Some(value.to_owned()),
            SearchOption::HeaderSysroot => options.header_sysroot = Some(value.to_owned()),
            SearchOption::NoStandard => options.nostdinc = true,
            SearchOption::NoStandardCxx => options.nostdinc_cxx = true,
            SearchOption::Builtin => {}
        }
    }

    /// `-I-`. gcc passes on all `-I` before any `-iquote`, so the directories that move come first.
    fn split_quote_dirs(&mut self) {
        self.preprocess.quote_split = true;
        self.quote_dirs_split.append(&mut self.preprocess.bracket_dirs);
    }

    fn prefixed(&self, value: &OsStr) -> SearchDir {
        match &self.iprefix {
            Some(prefix) => {
                let mut path = prefix.clone();
                path.push(value);
                SearchDir {
                    path,
                    base: DirBase::Given,
                }
            }
            None => SearchDir {
                path: value.to_owned(),
                base: DirBase::CompilerPrefix,
            },
        }
    }

    fn take_lexical(&mut self, option: LexicalOption, value: &OsStr) {
        let lexical = &mut self.preprocess.lexical;
        match option {
            LexicalOption::Standard => lexical.standard = Some(value.to_owned()),
            LexicalOption::Ansi => lexical.standard = Some("ansi".into()),
            LexicalOption::Undef => lexical.undef = true,
            LexicalOption::Trigraphs => lexical.trigraphs = true,
            LexicalOption::Traditional => lexical.traditional = true,
            LexicalOption::Preprocessed => lexical.preprocessed = true,
            LexicalOption::NotPreprocessed => lexical.preprocessed = false,
            LexicalOption::DirectivesOnly => lexical.directives_only = true,
            LexicalOption::Dollars => lexical.dollars_in_identifiers = Some(true),
            LexicalOption::NoDollars => lexical.dollars_in_identifiers = Some(false),
            LexicalOption::MaxIncludeDepth => lexical.include_depth_max = Some(value.to_owned()),
        }
    }

    fn require(&mut self, kind: RequiredKind, value: &OsStr) {
        if kind == RequiredKind::Plugin {
            self.facts.features.insert(Feature::Plugin);
        }
        let path = if kind == RequiredKind::AutoProfile && value.is_empty() {
            PathBuf::from("fbdata.afdo")
        } else {
            PathBuf::from(value)
        };
        self.required_files.push(RequiredFile { kind, path });
    }

    /// Goes through what `-Wp,` and `-Xpreprocessor` hand to the compiler proper, where `-MD` takes a file.
    fn take_preprocessor_words(&mut self) -> Result<(), LocalCommand> {
        let mut split = std::mem::take(&mut self.quote_dirs_split);
        let options = &mut self.preprocess;
        split.append(&mut options.quote_dirs);
        options.quote_dirs = split;
        options.bracket_dirs.append(&mut self.bracket_dirs_late);
        let words = std::mem::take(&mut self.preprocessor_words);
        let mut rest = words.as_slice();
        while let Some(first) = rest.first() {
            if let Some(kind) = DependencyOptions::kind_of_preprocessor_word(first) {
                let Some(file) = rest.get(1) else {
                    return Err(LocalCommand::new(LocalReason::MissingValue, Some(first)));
                };
                self.dependencies.take_preprocessor_list(kind, file);
                rest = &rest[2..];
                continue;
            }
            let word = Words::new(rest).next();
            let used = self.take_preprocessor_option(word.as_ref(), first)?;
            rest = &rest[used..];
        }
        Ok(())
    }

    fn take_preprocessor_option(&mut self, word: Option<&Word<'_>>, first: &OsStr) -> Result<usize, LocalCommand> {
        let Some(word @ Word::Option { row, value, words }) = word else {
            return Err(LocalCommand::new(LocalReason::UnknownOption, Some(first)));
        };
        if let Some(reason) = options::local_reason(row.role, *value) {
            return Err(LocalCommand::new(reason, Some(first)));
        }
        match row.role {
            Role::Dependency(option) => {
                self.dependencies
                    .take_from_preprocessor(option, value.unwrap_or_default());
            }
            // What `-I-` would mean behind everything else was never worth finding out.
            Role::Search(SearchOption::Bracket) if value.is_some_and(|dir| dir == "-") => {
                return Err(LocalCommand::new(LocalReason::UnknownOption, Some(first)));
            }
            Role::Search(SearchOption::Barrier) => {
                return Err(LocalCommand::new(LocalReason::UnknownOption, Some(first)));
            }
            Role::Macro(_)
            | Role::Search(_)
            | Role::Include
            | Role::Imacros
            | Role::Lexical(_)
            | Role::Debug
            | Role::Feature(_)
            | Role::Without(_)
            | Role::Codegen
            | Role::Optimize
            | Role::FamilyF
            | Role::FamilyM
            | Role::Charset
            | Role::InputCharset
            | Role::Inert => self.take(word),
            _ => return Err(LocalCommand::new(LocalReason::UnknownOption, Some(first))),
        }
        Ok(words.len())
    }

    fn take_assembler_words(&mut self) -> Result<(), LocalCommand> {
        let asked = std::mem::take(&mut self.assembler)
            .read()
            .map_err(|(reason, word)| LocalCommand::new(reason, Some(&word)))?;
        for feature in asked.features {
            self.facts.features.insert(feature);
        }
        if asked.debug {
            self.facts.debug = self.facts.debug.max(DebugLevel::Normal);
        }
        self.assembler_dirs = asked.include_dirs.into_iter().map(PathBuf::from).collect();
        self.required_files
            .extend(asked.input_files.into_iter().map(|path| RequiredFile {
                kind: RequiredKind::AssemblerInput,
                path,
            }));
        Ok(())
    }

    fn into_command(mut self, driver: Driver, plan: &Plan<'_>) -> Result<CompileCommand, LocalCommand> {
        if self.facts.features.has(Feature::Coverage) && self.facts.features.has(Feature::RandomSeed) {
            return Err(LocalCommand::new(LocalReason::CoverageSeed, None));
        }
        let options = &mut self.preprocess;
        options.bracket_dirs.append(&mut self.bracket_dirs_late);
        options.forced.append(&mut self.forced_headers);
        let dependencies = self.dependencies.resolve(plan).map_err(|file| LocalCommand {
            reason: LocalReason::DependencyFile,
            detail: file,
        })?;
        let suffix = match plan.stage {
            super::Stage::Object => ".o",
            super::Stage::Assembly => ".s",
        };
        Ok(CompileCommand {
            driver,
            argv: Vec::new(),
            response_files: Vec::new(),
            source: PathBuf::from(plan.source),
            language: plan.language,
            stage: plan.stage,
            output: match plan.output {
                Some(output) => PathBuf::from(output),
                None => with_suffix(plan.source, suffix),
            },
            output_is_explicit: plan.output.is_some(),
            dependencies,
            preprocess: self.preprocess,
            assembler_dirs: self.assembler_dirs,
            required_files: self.required_files,
            facts: self.facts,
        })
    }
}
