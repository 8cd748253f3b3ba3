//! Why a command is not for the farm.
//!
//! A reason is a value that is counted (`rdcc stats`) and shown (`rdcc why`), never an error: the command runs on the
//! submitting machine exactly as it was typed. Names are stable: scripts and tests read them.

macro_rules! local_reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a command is run by the local compiler.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum LocalReason {
            $($(#[$doc])* $variant,)*
        }

        impl LocalReason {
            /// Every reason, in the order of declaration.
            pub const ALL: &'static [LocalReason] = &[$(LocalReason::$variant,)*];

            /// Returns the reason's stable name, as it stands in `rdcc stats --json`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(LocalReason::$variant => $name,)*
                }
            }
        }
    };
}

local_reasons! {
    /// Neither `-c` nor `-S`: the command links.
    Link = "link",
    /// No input file at all.
    NoSource = "no_source",
    /// More than one source file.
    SeveralSources = "several_sources",
    /// More than one `-o`.
    SeveralOutputs = "several_outputs",
    /// Objects, archives or files of unknown kind beside or instead of the source.
    LinkerInput = "linker_input",
    /// The source is the standard input.
    Stdin = "stdin",
    /// `-E`, or a kind of source for which `-S` means no more than `-E`.
    PreprocessOnly = "preprocess_only",
    /// `-M` or `-MM`.
    DependenciesOnly = "dependencies_only",
    /// `-MG`: missing headers are to be made later.
    MissingHeadersGenerated = "missing_headers_generated",
    /// The list of dependencies goes to stdout or to a device, or is described but not asked for, which is an error.
    DependencyFile = "dependency_file",
    /// A question to the compiler: `--version`, `-v`, `-###`, `-print-…`, `-dump…`.
    Query = "query",
    /// A measurement of this machine: `-time`, `-ftime-report`, `-fmem-report`.
    Measurement = "measurement",
    /// `-fsyntax-only`.
    SyntaxOnly = "syntax_only",
    /// `-march`, `-mcpu` or `-mtune` is `native`, which means the machine that runs the compiler.
    NativeCpu = "native_cpu",
    /// The output goes to stdout.
    OutputStdout = "output_stdout",
    /// The output is a device or another thing that is not a regular file.
    OutputNotRegular = "output_not_regular",
    /// The source or the output is `/dev/null`: a probe.
    DevNull = "dev_null",
    /// Creation of a precompiled header.
    Pch = "pch",
    /// C++ modules.
    Modules = "modules",
    /// A file name that belongs to the tests of autoconf, CMake or meson.
    ConfigureProbe = "configure_probe",
    /// An option that the table does not know, or one that reads files nobody can name beforehand.
    UnknownOption = "unknown_option",
    /// The last option lacks its value.
    MissingValue = "missing_value",
    /// A language other than C, C++ and assembler.
    UnsupportedLanguage = "unsupported_language",
    /// `-wrapper`: another program runs the compiler's parts.
    Wrapper = "wrapper",
    /// `-frepo`: templates are instantiated at link time.
    TemplateRepository = "template_repository",
    /// `-fprofile-use` and its like: which profile is read depends on what exists here.
    ProfileUse = "profile_use",
    /// Coverage with `-frandom-seed`: the compiler removes an old profile from the build tree.
    CoverageSeed = "coverage_seed",
    /// A character set that the C library converts with modules outside the toolchain.
    Charset = "charset",
    /// `-dumpbase` and its like without `-o`: output names differ between compiler versions.
    DumpNames = "dump_names",
    /// `-Wa,@file`: the assembler expands it, unseen.
    AssemblerFile = "assembler_file",
    /// A response file that is too large, too deep, or not made of words.
    ResponseFile = "response_file",
    /// `DEPENDENCIES_OUTPUT` or `SUNPRO_DEPENDENCIES` is set.
    EnvDependencies = "env_dependencies",
    /// `GCC_COMPARE_DEBUG` is set.
    EnvCompareDebug = "env_compare_debug",
    /// `GCC_EXEC_PREFIX` or `COMPILER_PATH` is set: the compiler's parts may come from anywhere.
    EnvExecPrefix = "env_exec_prefix",
    /// A listing of the assembler, which names its temporary file, and `TMPDIR`, `TMP` or `TEMP` is set.
    EnvTemporaryDirectory = "env_temporary_directory",
}

impl std::fmt::Display for LocalReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl LocalReason {
    /// Tells the reasons that hold whatever the rest of the command says, so that they win over [`LocalReason::Link`].
    pub(super) fn is_mode(self) -> bool {
        use LocalReason::*;
        matches!(self, Query | PreprocessOnly | DependenciesOnly | SyntaxOnly | Stdin)
    }
}
