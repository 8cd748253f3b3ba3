//! A farm with one PC, and a board that is an agent in this process.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rdcc::agent::cluster::Cluster;
use rdcc::agent::coordinator_link::Identity;
use rdcc::agent::house::Agent;
use rdcc::agent::ledger::Ledger;
use rdcc::agent::socket::{Caller, Service};
use rdcc::exchange::place::{Place, Tree};
use rdcc::exchange::settings::{File, Given, Settings};
use rdcc::exchange::{CompileRequest, Compiler, Counters, Driver, Reply, Wish, Zero};
use rdcc::ids::Name;
use rdcc::protocol::{PIECE_BYTES_MAX, wire};
use rdcc::runtime::channel;
use rdcc::runtime::tasks::Tasks;
use rdcc::toolchains::bundle::pack;
use rdcc::toolchains::capture::{Surroundings, capture};
use rdcc::toolchains::definition::Definition;
use rdcc::toolchains::golden::Golden;
use rdcc::toolchains::golden::compile::compile as compile_golden;
use rdcc::toolchains::host::Host;

use crate::support::{copy_program, write_program};

use crate::cluster::farm::{TestFarm, assert_same_files, has_compiler, snapshot, words};

const TARGET: &str = "arm-linux-gnueabi";
const HARDER: &str = "arm-linux-gnueabihf";
const BOARD: &str = "armv7-linux";
pub(super) const PC: &str = "x86_64-linux";

/// What a compile leaves, by name.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// A farm with one PC, and a board.
pub(super) struct World {
    pub(super) farm: TestFarm,
    pub(super) prefix: PathBuf,
    pub(super) agent: Agent<Cluster>,
    pub(super) tasks: Tasks,
}

/// How the board's compiler differs from the PC's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Board {
    /// In where it stands only.
    Same,
    /// It signs its objects as another revision of the package, as Debian's native gcc does; C only.
    Signs,
    /// The PC has a compiler for boards with hard float, which has to be told what this one is by itself; C only.
    Softer,
}

/// A copy of the cross compiler: the drivers as files of their own, gcc's headers too and one more; the rest as links.
fn copy_compiler(prefix: &Path, board: Board) {
    let lib = format!("lib/gcc-cross/{TARGET}/12");
    let (from, to) = (Path::new("/usr").join(&lib), prefix.join(&lib));
    fs::create_dir_all(&to).expect("made");
    fs::create_dir_all(prefix.join("bin")).expect("made");
    for entry in fs::read_dir(&from).expect("a compiler") {
        let name = entry.expect("an entry").file_name();
        match name.to_str() {
            Some("include") => copy_tree(&from.join(&name), &to.join(&name)),
            Some("cc1") if board == Board::Signs => sign(&from.join(&name), &to.join(&name)),
            _ => symlink(from.join(&name), to.join(&name)).expect("linked"),
        }
    }
    fs::write(to.join("include/board-only.h"), "#define BOARD_ONLY 3\n").expect("written");
    symlink(format!("/usr/{TARGET}"), prefix.join(TARGET)).expect("linked");
    for driver in ["gcc", "g++"] {
        let real = fs::canonicalize(format!("/usr/bin/{TARGET}-{driver}")).expect("a compiler");
        copy_program(&real, &prefix.join("bin").join(format!("{TARGET}-{driver}")));
    }
}

/// Copies a compiler proper, with another revision in the name that it signs with.
fn sign(from: &Path, to: &Path) {
    let mut program = fs::read(from).expect("read");
    let name = b"(Debian 12.2.0-1";
    let at = program.windows(name.len()).position(|window| window == name);
    let revision = at.expect("Debian's compiler names its revision") + name.len();
    program[revision] ^= 1;
    write_program(to, program);
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("listed") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy_tree(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).expect("copied")),
        }
    }
}

impl World {
    /// Nothing where the compilers are not here, or programs of a PC are none of this machine's.
    pub(super) async fn new(board: Board) -> Option<Self> {
        if !has_compiler() || !Path::new(&format!("/usr/bin/{TARGET}-g++")).exists() {
            return None;
        }
        if board == Board::Softer && !Path::new(&format!("/usr/bin/{HARDER}-gcc")).exists() {
            eprintln!("skipped: no {HARDER}-gcc");
            return None;
        }
        if Host::current().to_string() != PC {
            eprintln!("skipped: this is no {PC} machine");
            return None;
        }
        let mut farm = TestFarm::new();
        farm.start_worker("pc", 2);
        let prefix = farm.path("board-sdk");
        copy_compiler(&prefix, board);
        let text = definition(&prefix, board, "identical");
        let files = farm.path("board-toolchains");
        fs::create_dir(&files).expect("made");
        fs::write(files.join("board.toml"), &text).expect("written");
        let file = File {
            toolchain_dirs: Some(vec![files]),
            local_share: Some(false),
            ..File::default()
        };
        let given = Given {
            coordinator: Some(format!("http://{}", farm.coordinator_address)),
            processors: 2,
            ..Given::default()
        };
        let settings = Settings::new(given, file, File::default()).expect("settings");
        let tree = Tree {
            uid: 0,
            mount_namespace: 1,
            root_device: 0,
            root_inode: 0,
            coordinator: None,
        };
        let place = Place::new(farm.path("board-state"), &tree);
        fs::create_dir_all(place.own_dir()).expect("made");
        let identity = Identity {
            host: "board".into(),
            user: "tester".into(),
            pid: 1,
        };
        let tasks = Tasks::default();
        let ledger = Arc::new(Ledger::new(place.state_dir()));
        let host = BOARD.parse().expect("a kind of host");
        let agent = Agent::of_cluster(&settings, &place, host, identity, ledger, &tasks).expect("an agent");
        let world = Self {
            farm,
            prefix,
            agent,
            tasks,
        };
        world.push_board(&text).await;
        world.push_pc(&text);
        Some(world)
    }

    /// Pushes the board's compiler, as an rdcc on a board would.
    async fn push_board(&self, text: &str) {
        let definition = Definition::parse(text).expect("a toolchain file");
        let surroundings = Surroundings {
            path: ["/usr/bin", "/bin"].map(PathBuf::from).to_vec(),
            ..Surroundings::default()
        };
        let host = BOARD.parse().expect("a kind of host");
        let captured = capture(&definition, host, &surroundings, &mut |_, _| {}).expect("captured");
        let golden = compile_golden(&captured.manifest, &surroundings).expect("golden objects");
        let (manifest, root) = (captured.manifest, Path::new("/"));
        let bundle = tempfile::tempfile().expect("a file");
        let (bundle, file) = pack(&manifest, root, bundle, 2, &mut |_, _| {}).expect("packed");
        let head = wire::PushHead {
            name: "board".into(),
            definition: text.into(),
            manifest: manifest.encode(),
            bundle_digest: bundle.digest.as_bytes().to_vec(),
            bundle_size: bundle.size,
            replace: false,
            golden: to_wire(&golden),
        };
        self.push_head(head, file).await;
    }

    async fn push_head(&self, head: wire::PushHead, mut bundle: fs::File) {
        use std::io::{Seek, SeekFrom};
        bundle.seek(SeekFrom::Start(0)).expect("a file");
        let mut content = Vec::new();
        bundle.read_to_end(&mut content).expect("read");
        let part = |part| wire::PushPart { part: Some(part) };
        let mut parts = vec![part(wire::push_part::Part::Head(head))];
        let pieces = content.chunks(PIECE_BYTES_MAX);
        parts.extend(pieces.map(|piece| part(wire::push_part::Part::Data(piece.to_vec()))));
        let mut client = self.registry().await;
        client.push(tokio_stream::iter(parts)).await.expect("pushed");
    }

    /// Pushes the PC's compiler again, with one golden object that is another one's.
    pub(super) async fn push_spoilt(&self, text: &str) {
        let definition = Definition::parse(text).expect("a toolchain file");
        let surroundings = Surroundings {
            path: ["/usr/bin", "/bin"].map(PathBuf::from).to_vec(),
            ..Surroundings::default()
        };
        let captured = capture(&definition, Host::current(), &surroundings, &mut |_, _| {}).expect("captured");
        let golden = compile_golden(&captured.manifest, &surroundings).expect("golden objects");
        let mut golden = to_wire(&golden);
        let taken = golden.iter().find(|unit| unit.unit == "arithmetic.c -O0");
        let taken = taken.expect("a unit").object.clone();
        let spoilt = golden.iter_mut().find(|unit| unit.unit == "arithmetic.c -O2");
        spoilt.expect("a unit").object = taken;
        let id = captured.manifest.id().0.as_bytes().to_vec();
        let which = Some(wire::show_request::Which::Toolchain(id));
        let shown = self.registry().await.show(wire::ShowRequest { which }).await;
        let known = shown.expect("pushed before").into_inner().summary.expect("a summary");
        let head = wire::PushHead {
            name: "board".into(),
            definition: text.into(),
            manifest: captured.manifest.encode(),
            bundle_digest: known.bundle_digest,
            bundle_size: known.bundle_size,
            replace: false,
            golden,
        };
        self.push_head(head, tempfile::tempfile().expect("a file")).await;
        self.no_place_is_held().await;
    }

    /// Waits until the agent has given back what it held ahead of need: a job that comes while a place is being called back
    /// would try it in vain.
    async fn no_place_is_held(&self) {
        let channel = channel::connect(&format!("http://{}", self.farm.coordinator_address)).await;
        let mut coordinator = wire::coordinator_client::CoordinatorClient::new(channel.expect("connected"));
        loop {
            let status = coordinator.status(wire::StatusRequest {}).await.expect("it answers");
            if status.into_inner().agents.iter().all(|agent| agent.holding == 0) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    async fn registry(&self) -> wire::toolchains_client::ToolchainsClient<tonic::transport::Channel> {
        let channel = channel::connect(&format!("http://{}", self.farm.coordinator_address)).await;
        wire::toolchains_client::ToolchainsClient::new(channel.expect("connected"))
    }

    pub(super) fn push_pc(&self, text: &str) {
        let file = self.farm.path("pc.toml");
        fs::write(&file, text).expect("written");
        let output = self
            .farm
            .rdcc()
            .args(["toolchain", "push", "--replace"])
            .arg(file)
            .output()
            .expect("runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn request(&self, driver: Driver, text: &str) -> CompileRequest {
        let mut argv = vec![OsString::new()];
        argv.extend(words(text).into_iter().map(OsString::from));
        CompileRequest {
            toolchain: Some(Name::new("board").expect("a name")),
            compiler: Compiler::OfToolchain(driver),
            argv,
            cwd: self.farm.src(),
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            umask: 0o022,
            terminal: None,
            wish: Wish::Anywhere,
            worker: None,
        }
    }

    async fn compile(&self, driver: Driver, text: &str) -> Reply {
        let caller = Caller {
            pid: 0,
            gone: tokio_util::sync::CancellationToken::new(),
        };
        self.agent.compile(self.request(driver, text), caller).await.reply
    }

    async fn counters(&self) -> Counters {
        self.agent.stats(Zero::Reset).await.expect("counted").counters
    }

    /// Asserts that a compile on the PC leaves the files that the board's own compiler leaves.
    pub(super) async fn check(&self, driver: Driver, text: &str) {
        let (expected, found) = self.compiled(driver, text).await;
        assert_same_files(&found, &expected, text);
    }

    /// Compiles with the board's own compiler and on the PC, and returns the files that each left.
    pub(super) async fn compiled(&self, driver: Driver, text: &str) -> (Files, Files) {
        let compiler = match driver {
            Driver::C => "gcc",
            Driver::Cxx => "g++",
        };
        let compiler = self.prefix.join("bin").join(format!("{TARGET}-{compiler}"));
        self.sources();
        let local = self.farm.client(&compiler).args(words(text)).output().expect("runs");
        self.farm.assert_success(&local);
        let expected = snapshot(&self.farm.src());
        self.sources();
        let reply = self.compile(driver, text).await;
        let counters = self.counters().await;
        let said = format!("{text}: {reply:?} {counters:?}\n{}", self.farm.logs());
        assert!(
            matches!(&reply, Reply::Finished(ended) if ended.status.success()),
            "{said}"
        );
        assert_eq!(counters.remote_by_variant.get(PC), Some(&1), "{said}");
        assert!(counters.fallbacks_by_reason.is_empty(), "{said}");
        (expected, snapshot(&self.farm.src()))
    }

    fn sources(&self) {
        let src = self.farm.src();
        fs::remove_dir_all(&src).expect("removed");
        fs::create_dir(&src).expect("made");
        self.farm.write("a.c", C);
        self.farm.write("b.cc", CXX);
        self.farm.write("s.S", ASM);
        self.farm.write("sub/a.h", "#define A 7\n");
        self.farm
            .write("sub/limits.h", "#include_next <limits.h>\n#define OURS 1\n");
        self.farm.write("blob", "some bytes\n");
        self.farm.write("flags", "-O2 -DX=1\n");
        self.farm.write("warns.c", "int f(void) { int unused; return 0; }\n");
        self.farm.write("wrong.c", "int f(void) { return missing; }\n");
        fs::create_dir(src.join("out")).expect("made");
    }

    /// Compiles, and asserts that this was left to the local compiler for `reason` after `fallbacks`.
    pub(super) async fn stays_here(&self, text: &str, reason: &str, fallbacks: &[&str]) -> Counters {
        self.sources();
        let reply = self.compile(Driver::C, text).await;
        let counters = self.counters().await;
        let said = format!("{text}: {reply:?} {counters:?}\n{}", self.farm.logs());
        assert!(matches!(reply, Reply::RunLocally(_)), "{said}");
        assert_eq!(counters.local_by_reason.keys().collect::<Vec<_>>(), [reason], "{said}");
        assert_eq!(
            counters.fallbacks_by_reason.keys().collect::<Vec<_>>(),
            fallbacks,
            "{said}"
        );
        counters
    }
}

const C: &str = "#include <stdio.h>\n#include <stdint.h>\n#include <limits.h>\n#include <stdarg.h>\n#include <board-only.h>\n\
    #include \"sub/a.h\"\n#if !__has_include(<board-only.h>) || __has_include(<no-such.h>)\n#error headers\n#endif\n\
    int big = INT_MAX - BOARD_ONLY;\nconst char *file = __FILE__;\n\
    int sum(int n, ...) { va_list l; int s = A; va_start(l, n); while (n--) s += va_arg(l, int); va_end(l); return s; }\n\
    int main(void)\n{\n\tprintf(\"%d %d\\n\", sum(1, 2), (int)__STDC_ISO_10646__);\n\treturn 0;\n}\n";
const CXX: &str = "#include <map>\n#include <string>\n#include <climits>\n#include \"sub/a.h\"\n\
    std::map<std::string, int> table;\nint get(const std::string &key) { return table[key] + A + INT_MAX; }\n";
const ASM: &str = "#include \"sub/a.h\"\n\t.text\n\t.global f\nf:\tmov r0, #A\n\tbx lr\n\t.incbin \"blob\"\n";

pub(super) fn definition(prefix: &Path, board: Board, certify: &str) -> String {
    let cxx = match board {
        Board::Same => format!(", \"c++\" = \"{TARGET}-g++\""),
        Board::Signs | Board::Softer => String::new(),
    };
    let pc = match board {
        Board::Same | Board::Signs => String::new(),
        Board::Softer => format!(
            "target = \"{HARDER}\"\ncompilers = {{ c = \"{HARDER}-gcc\" }}\n\
             defaults = [\"-mfloat-abi=soft\", \"-mtls-dialect=gnu\", \"-marm\", \"-march=armv5te\"]\n"
        ),
    };
    format!(
        "name = \"board\"\ntarget = \"{TARGET}\"\n\
         compilers = {{ c = \"{TARGET}-gcc\"{cxx} }}\n\
         [[variant]]\nhost = \"{BOARD}\"\npath = [\"{}/bin\"]\n\
         [[variant]]\nhost = \"{PC}\"\ncertify = \"{certify}\"\n{pc}",
        prefix.display()
    )
}

fn to_wire(golden: &Golden) -> Vec<wire::GoldenObject> {
    let objects = golden.objects().iter();
    objects
        .map(|(unit, object)| wire::GoldenObject {
            unit: unit.clone(),
            object: object.clone(),
        })
        .collect()
}
