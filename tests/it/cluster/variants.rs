//! A board's compiler and a PC's: jobs of the one run on the other, with the same bits.
//!
//! The board is an agent in this process whose machine is said to be one, with a copy of the cross compiler under a prefix of
//! its own as its compiler: other paths, other headers of gcc's, another identity. The PC is a real worker with the installed
//! cross compiler.

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
use rdcc::exchange::{CompileRequest, Compiler, Counters, Driver, Reply, Variant, Wish, Zero};
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
use rdcc::toolchains::objects::{Agreement, compare};

use crate::support::{copy_program, write_program};

use super::farm::{TestFarm, assert_same_files, has_compiler, snapshot, words};

const TARGET: &str = "arm-linux-gnueabi";
const HARDER: &str = "arm-linux-gnueabihf";
const BOARD: &str = "armv7-linux";
const PC: &str = "x86_64-linux";

/// What a compile leaves, by name.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// A farm with one PC, and a board.
struct World {
    farm: TestFarm,
    prefix: PathBuf,
    agent: Agent<Cluster>,
    tasks: Tasks,
}

/// How the board's compiler differs from the PC's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Board {
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
    async fn new(board: Board) -> Option<Self> {
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
    async fn push_spoilt(&self, text: &str) {
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
    }

    async fn registry(&self) -> wire::toolchains_client::ToolchainsClient<tonic::transport::Channel> {
        let channel = channel::connect(&format!("http://{}", self.farm.coordinator_address)).await;
        wire::toolchains_client::ToolchainsClient::new(channel.expect("connected"))
    }

    fn push_pc(&self, text: &str) {
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
    async fn check(&self, driver: Driver, text: &str) {
        let (expected, found) = self.compiled(driver, text).await;
        assert_same_files(&found, &expected, text);
    }

    /// Compiles with the board's own compiler and on the PC, and returns the files that each left.
    async fn compiled(&self, driver: Driver, text: &str) -> (Files, Files) {
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
    async fn stays_here(&self, text: &str, reason: &str, fallbacks: &[&str]) -> Counters {
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

fn definition(prefix: &Path, board: Board, certify: &str) -> String {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_pc_compiles_for_a_board_what_the_board_would_have_made() {
    let Some(world) = World::new(Board::Same).await else {
        return;
    };
    for text in [
        "-O2 -c a.c -o out/a.o",
        "-g -O1 -MMD -c a.c",
        "-g3 -O0 -MD -MF out/a.d -MT x -c a.c -o out/a.o",
        "-Os -mcpu=arm926ej-s -fPIC -ffunction-sections -MD -MP -Wall -c a.c",
        "-mthumb -march=armv7-a -mfpu=vfpv3-d16 -mfloat-abi=softfp -O2 -c a.c",
        "-isystem sub -idirafter . -include sub/a.h -O2 -g -MD -c a.c",
        "-std=gnu99 -D_FORTIFY_SOURCE=2 -O2 -fstack-protector-strong -fstack-usage -c a.c",
        "-O2 -S a.c",
        "-c @flags a.c",
        "-fsanitize=undefined -O1 -c a.c",
        "-c s.S -o out/s.o",
        "-g -MD -c s.S",
        "-x c++ -O2 -c b.cc",
    ] {
        world.check(Driver::C, text).await;
    }
    for text in [
        "-O2 -c b.cc",
        "-g -std=c++17 -MMD -fno-exceptions -c b.cc -o out/b.o",
        "-O0 -g3 -MD -c b.cc",
    ] {
        world.check(Driver::Cxx, text).await;
    }
    let record = world.agent.why(world.farm.src().join("b.o")).await.expect("known");
    let variant = record[0].variant.clone().expect("told");
    let Variant { host, level, .. } = &variant;
    assert_eq!((host.as_str(), level.as_str()), (PC, "identical"));
    what_a_variant_cannot_do_exactly_stays_here(&world).await;
    other_golden_objects_end_it_at_once(&world).await;
    world.tasks.shut_down(std::time::Duration::from_secs(30)).await;
}

async fn what_a_variant_cannot_do_exactly_stays_here(world: &World) {
    let own_only = "own_toolchain_only";
    world.stays_here("-Wall -c warns.c", own_only, &["variant_spoke"]).await;
    world.stays_here("-c wrong.c", own_only, &["variant_spoke"]).await;
    for (text, why) in [
        ("-flto -c a.c", "own_only_lto"),
        ("-frecord-gcc-switches -c a.c", "own_only_recorded_command_line"),
        ("-save-temps -c a.c", "own_only_side_files"),
        ("-g -gsplit-dwarf -c a.c", "own_only_side_files"),
    ] {
        let counters = world.stays_here(text, own_only, &[]).await;
        assert_eq!(counters.own_only_by_reason.keys().collect::<Vec<_>>(), [why], "{text}");
    }
}

async fn other_golden_objects_end_it_at_once(world: &World) {
    world.check(Driver::C, "-O2 -c a.c").await;
    let text = definition(&world.prefix, Board::Same, "identical");
    world.push_spoilt(&text).await;
    world.stays_here("-O2 -c a.c", "toolchain_not_on_farm", &[]).await;
    world.push_pc(&text);
    world.check(Driver::C, "-O2 -c a.c").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compiler_that_was_built_for_another_core_is_told_what_it_is_to_be() {
    let Some(world) = World::new(Board::Softer).await else {
        return;
    };
    for text in [
        "-O2 -c a.c -o out/a.o",
        "-g -O1 -MMD -c a.c",
        "-g3 -O0 -c a.c -o out/a.o",
        "-Os -mcpu=arm926ej-s -fPIC -c a.c",
        "-g -mthumb -O2 -c a.c",
        "-g -marm -mabi=aapcs-linux -march=armv5te -mtune=arm9tdmi -msoft-float -Os -c a.c",
        "-mthumb -march=armv7-a -mfpu=vfpv3-d16 -mfloat-abi=softfp -O2 -c a.c",
        "-c @flags a.c",
        "-g -MD -c s.S",
    ] {
        world.check(Driver::C, text).await;
    }
    let told = definition(&world.prefix, Board::Softer, "identical");
    let untold: Vec<&str> = told.lines().filter(|line| !line.starts_with("defaults")).collect();
    world.push_pc(&untold.join("\n"));
    world.stays_here("-O2 -c a.c", "toolchain_not_on_farm", &[]).await;
    world.tasks.shut_down(std::time::Duration::from_secs(30)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_with_another_signature_are_taken_only_where_the_file_says_so() {
    let Some(world) = World::new(Board::Signs).await else {
        return;
    };
    world
        .stays_here("-O2 -g -c a.c -o a.o", "toolchain_not_on_farm", &[])
        .await;
    let allowing = definition(&world.prefix, Board::Signs, "same-code");
    // The board's own file has a say, too.
    world.push_pc(&allowing);
    let refused = ["variant_unprepared"];
    world
        .stays_here("-O2 -g -c a.c -o a.o", "own_toolchain_only", &refused)
        .await;
    fs::write(world.farm.path("board-toolchains").join("board.toml"), &allowing).expect("written");
    for text in ["-O2 -g -MMD -c a.c -o a.o", "-O0 -g3 -c a.c -o a.o"] {
        let (mut expected, mut found) = world.compiled(Driver::C, text).await;
        let name = Path::new("a.o");
        let objects = [&mut expected, &mut found].map(|files| files.remove(name).expect("an object"));
        assert_eq!(compare(&objects[0], &objects[1]), Agreement::SameCode, "{text}");
        assert_same_files(&found, &expected, text);
    }
    let record = world.agent.why(world.farm.src().join("a.o")).await.expect("known");
    assert_eq!(
        record[0].variant.as_ref().map(|variant| variant.level.as_str()),
        Some("same-code")
    );
    // Assembly has the signature in it as text.
    let counters = world.stays_here("-O2 -S a.c", "own_toolchain_only", &[]).await;
    let why: Vec<_> = counters.own_only_by_reason.keys().collect();
    assert_eq!(why, ["own_only_assembly"]);
    world.tasks.shut_down(std::time::Duration::from_secs(30)).await;
}
