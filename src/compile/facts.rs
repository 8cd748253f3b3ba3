//! What else a command asks for that policy has to know: debug information, features, side files.
//!
//! Only what was typed: whether two things go together is for the readers of these facts to say.

/// Something a command asks for, that at least one policy depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Feature {
    /// `-flto`: the object holds the compiler's own representation.
    Lto,
    /// `-fsanitize=…`.
    Sanitizer,
    /// `-ftest-coverage`, `--coverage`: writes `.gcno`, names a `.gcda`.
    Coverage,
    /// `-fprofile-arcs`, `-fprofile-generate`: names a `.gcda`.
    ProfileGenerate,
    /// `-fanalyzer`.
    Analyzer,
    /// `-frecord-gcc-switches`: the object holds the command line.
    RecordedSwitches,
    /// `-gsplit-dwarf`: writes `.dwo`.
    SplitDwarf,
    /// `-gtoggle`: debug information is the opposite of what the rest says.
    DebugToggled,
    /// `-save-temps`: writes `.i`, `.s`.
    SaveTemps,
    /// `-pipe`.
    Pipe,
    /// `-fstack-usage`: writes `.su`.
    StackUsage,
    /// `-fcallgraph-info`: writes `.ci`.
    CallGraph,
    /// `-fdump-…`, `-d…`: writes dumps.
    Dump,
    /// `-fopt-info…`: stderr or a file.
    OptInfo,
    /// `-fsave-optimization-record`: writes `.opt-record.json.gz`.
    OptRecord,
    /// `-aux-info`: writes prototypes.
    AuxInfo,
    /// `-fdiagnostics-format=…-file` and its like: writes diagnostics.
    DiagnosticsFile,
    /// `-Wa,-a…`: writes a listing, or prints it.
    AssemblerListing,
    /// Other files written by the assembler: `-Wa,--MD`.
    AssemblerFile,
    /// `-fcompare-debug`: compiles twice.
    CompareDebug,
    /// `-fplugin=`.
    Plugin,
    /// `-frandom-seed`.
    RandomSeed,
    /// `-H`: prints the headers' names.
    IncludeTrace,
    /// `-C`, `-CC`: comments survive preprocessing.
    KeptComments,
    /// `-P`: preprocessed text does not say where it came from.
    NoLineMarkers,
    /// `-finput-charset=`.
    InputCharset,
    /// `-no-integrated-cpp`: preprocesses in a process of its own.
    SeparatePreprocessor,
    /// `-fverbose-asm`: the assembly holds the command line.
    VerboseAsm,
    /// `-Q`: prints what is compiled.
    Progress,
}

impl Feature {
    const SIDE_FILES: [Feature; 12] = [
        Feature::Coverage,
        Feature::SplitDwarf,
        Feature::SaveTemps,
        Feature::StackUsage,
        Feature::CallGraph,
        Feature::Dump,
        Feature::OptInfo,
        Feature::OptRecord,
        Feature::AuxInfo,
        Feature::DiagnosticsFile,
        Feature::AssemblerListing,
        Feature::AssemblerFile,
    ];

    /// Returns whether the feature can change predefined macros.
    pub(super) fn shapes_predefined(self) -> bool {
        matches!(
            self,
            Feature::Lto
                | Feature::Sanitizer
                | Feature::Coverage
                | Feature::ProfileGenerate
                | Feature::Analyzer
                | Feature::Plugin
        )
    }

    const fn bit(self) -> u32 {
        1 << self as u8
    }
}

/// A set of features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Features(u32);

impl Features {
    /// Returns whether the command asks for `feature`.
    pub fn has(self, feature: Feature) -> bool {
        self.0 & feature.bit() != 0
    }

    /// Returns whether the command may write files besides the output and the list of dependencies.
    pub fn writes_side_files(self) -> bool {
        Feature::SIDE_FILES.iter().any(|feature| self.has(*feature))
    }

    /// Returns whether the names of temporary files stand in what the command writes.
    pub(super) fn names_temporary_files(self) -> bool {
        self.has(Feature::AssemblerListing) || self.has(Feature::AssemblerFile)
    }

    pub(super) fn insert(&mut self, feature: Feature) {
        self.0 |= feature.bit();
    }

    pub(super) fn remove(&mut self, feature: Feature) {
        self.0 &= !feature.bit();
    }
}

/// How much debug information a command asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub enum DebugLevel {
    /// None: no `-g`, or `-g0` last.
    #[default]
    None,
    /// `-g1`: lines and functions.
    Minimal,
    /// `-g`.
    Normal,
    /// `-g3`: macros too.
    Macros,
}

impl DebugLevel {
    /// Returns the level after one more option of the `-g` family, given as what follows `-g`.
    pub(super) fn after(self, suffix: &[u8]) -> Self {
        const FORMATS: [&[u8]; 9] = [
            b"gdb",
            b"stabs+",
            b"stabs",
            b"coff",
            b"xcoff",
            b"vms",
            b"btf",
            b"ctf",
            b"codeview",
        ];
        // What follows is a version (`-gdwarf-4`), or means nothing; older compilers took `-gsplit-dwarf` for `-g` too.
        if suffix.starts_with(b"dwarf") || suffix == b"split-dwarf" {
            return self.max(DebugLevel::Normal);
        }
        let level = FORMATS
            .iter()
            .find_map(|format| suffix.strip_prefix(*format))
            .unwrap_or(suffix);
        match level {
            b"" => self.max(DebugLevel::Normal),
            b"0" => DebugLevel::None,
            b"1" => DebugLevel::Minimal,
            b"2" => DebugLevel::Normal,
            [b'3'..=b'9'] => DebugLevel::Macros,
            _ => self,
        }
    }
}

/// Whether a command asks the compiler to optimize at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub enum Optimization {
    /// No `-O`, or `-O0` last.
    #[default]
    Off,
    /// Any other `-O`.
    On,
}

impl Optimization {
    /// Returns what an option means, given as what follows `-O`.
    pub(super) fn of(suffix: &[u8]) -> Self {
        if !suffix.is_empty() && suffix.iter().all(|byte| *byte == b'0') {
            Optimization::Off
        } else {
            Optimization::On
        }
    }
}

/// What policy wants to know about a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Facts {
    /// Debug information.
    pub debug: DebugLevel,
    /// Optimization.
    pub optimization: Optimization,
    /// Everything else.
    pub features: Features,
}
