//! What did the user ask the compiler to do?
//!
//! From a command line to a [`Verdict`]: either one compile of one source, described fully enough to run it elsewhere
//! ([`CompileCommand`]), or the reason why it has to run here ([`LocalReason`]). Beside that: lists of dependencies as
//! gcc writes them, the two command lines of a compile that is preprocessed here and compiled there,
//! and that of one that runs on another build of its compiler.
//!
//! All of it is pure: no clock, no disk, no environment, no processes; what has to be read is handed in. The rule for
//! every doubt is *local*: an option nobody wrote a row for, in `options/table.rs`, does not leave this machine.

mod assembler;
mod command;
mod dep_file;
mod dependencies;
mod environment;
mod facts;
pub mod file_name;
mod language;
mod options;
mod parse;
mod preprocessed;
mod probe;
mod quick;
mod reason;
mod response_file;
mod rewrite;
mod survey;
mod variant;
mod words;

#[cfg(test)]
mod tests;

pub use command::{
    CompileCommand, DependencyKind, DependencyRequest, DependencyTarget, DirBase, EnvironmentDirs, ForcedInclude,
    LexicalOptions, MacroOption, Phony, PreprocessOptions, Quoting, RequiredFile, SearchDir,
};
pub use dep_file::{DependencyFile, DependencyFileError};
pub use environment::is_relevant as is_relevant_variable;
pub use facts::{DebugLevel, Facts, Feature, Features, Optimization};
pub use language::{Driver, Language};
pub use options::{MacroAction, RequiredKind};
pub use parse::{LocalCommand, Verdict, parse};
pub use preprocessed::{NotExact, exactness, local_preprocess, remote_compile, text_exactness};
pub use probe::is_probe;
pub use quick::quick_local;
pub use reason::LocalReason;
pub use response_file::{Expanded, ResponseFileError, expand as expand_response_files};
pub use rewrite::with_full_dependencies;
pub use survey::Stage;
pub use variant::{OwnOnly, VariantNames, profile_words, variant_exactness, variant_words};
