//! Jobs of another toolchain on this worker's own: what it makes sure of before, in the real sandbox, with the real compiler.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use rdcc::agent::worker_link::{LinkError, LinkRun};
use rdcc::digest::Digest;
use rdcc::ids::ToolchainId;
use rdcc::job::{OutputKind, RefusalKind};
use rdcc::toolchains::capture::Surroundings;
use rdcc::toolchains::definition::Language;
use rdcc::toolchains::golden::Golden;
use rdcc::toolchains::golden::compile::compile;
use rdcc::toolchains::profile::{Answer, COMMANDS, Question, RunAs, environment, profile};

use super::farm::Farm;

const SOURCE: &str = "int f(int a) { return a + 1; }\n";

/// The toolchain that the jobs are of; no worker has it.
fn boards() -> ToolchainId {
    ToolchainId(Digest::of(b"the board's"))
}

fn golden(farm: &Farm) -> Golden {
    let surroundings = Surroundings {
        path: ["/usr/bin", "/bin"].map(PathBuf::from).to_vec(),
        ..Surroundings::default()
    };
    compile(&farm.manifest, &surroundings).expect("golden objects")
}

fn question(words: &[&str]) -> Question {
    Question {
        driver: Language::C,
        language: "c".into(),
        words: words.iter().map(Into::into).collect(),
    }
}

/// What the compiler that is installed here makes of these flags.
fn profile_here(farm: &Farm, question: &Question) -> Digest {
    let env = environment(&[], "/usr/bin:/bin".as_ref());
    let mut answers: [Answer; COMMANDS] = Default::default();
    for (answer, words) in answers.iter_mut().zip(question.commands()) {
        let output = Command::new(&farm.manifest.compilers()[&Language::C])
            .args(words)
            .current_dir("/tmp")
            .env_clear()
            .envs(env.iter().map(|(name, value)| (name, value)))
            .output()
            .expect("runs");
        assert!(output.status.success(), "{output:?}");
        *answer = Answer {
            stdout: output.stdout,
            stderr: output.stderr,
        };
    }
    profile(&answers)
}

/// A job of the board's on the toolchain that is here. Its program is one that only a board has.
fn job(farm: &Farm, flags: &[&str], profile: Option<Digest>) -> LinkRun {
    let mut job = farm.job("a.c", "a.o", flags);
    let question = question(flags);
    let profile = profile.unwrap_or_else(|| profile_here(farm, &question));
    farm.grant_variant(&mut job, boards());
    job.spec.program = "/opt/board/bin/gcc".into();
    job.spec.argv[0] = "/opt/board/bin/gcc".into();
    job.spec.env = vec![("PATH".into(), "/opt/board/bin".into())];
    job.run_as = Some(RunAs {
        toolchain: farm.toolchain(),
        question,
        profile,
    });
    job
}

async fn object(farm: &Farm, job: LinkRun) -> Result<Vec<u8>, RefusalKind> {
    match farm.link.run(job).await {
        Ok(outcome) => {
            assert!(outcome.status.success(), "{outcome:?}");
            let path = farm.path("a.o");
            let found = outcome.outputs.into_iter().find(|output| output.path == path);
            match found.expect("an object").kind {
                OutputKind::File { content, .. } => Ok(content),
                OutputKind::Removed => panic!("removed"),
            }
        }
        Err(LinkError::Refused(refusal)) => {
            println!("{}", refusal.message);
            Err(refusal.kind)
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variant_runs_jobs_once_its_golden_objects_and_the_flags_profile_are_right() {
    let Some(farm) = Farm::start(2).await else { return };
    farm.write("a.c", SOURCE);
    *farm.goldens.golden.lock().expect("whole") = golden(&farm);
    for flags in [&["-O2"][..], &["-O2"], &["-O1", "-g"]] {
        let made = object(&farm, job(&farm, flags, None)).await;
        assert!(farm.compile_locally("a.c", "a.o", flags).status.success());
        let local = std::fs::read(farm.path("a.o")).expect("made");
        assert_eq!(made.as_deref(), Ok(local.as_slice()), "{flags:?}");
    }
    let asked = farm.goldens.asked.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(asked, 1, "the golden set is compiled once");
    // Flags under which the job's own compiler is another one: said at once, and only of these flags.
    let other = Digest::of(b"another answer");
    for _ in 0..2 {
        let refused = object(&farm, job(&farm, &["-O3"], Some(other))).await;
        assert_eq!(refused, Err(RefusalKind::Unlike));
    }
    let refused = object(&farm, job(&farm, &["-mno-such-option"], Some(other))).await;
    assert_eq!(refused, Err(RefusalKind::Unlike));
    assert!(object(&farm, job(&farm, &["-O2"], None)).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variant_with_other_golden_objects_runs_none() {
    let Some(farm) = Farm::start(1).await else { return };
    farm.write("a.c", SOURCE);
    let right = golden(&farm);
    let mut spoilt = BTreeMap::clone(right.objects());
    let object_of = spoilt.get_mut("arithmetic.c -O2").expect("a unit");
    let at = object_of.len() / 2;
    object_of[at] ^= 1;
    let mut set = Golden::default();
    for (unit, object) in spoilt {
        set.add(unit, object).expect("as large as before");
    }
    *farm.goldens.golden.lock().expect("whole") = set;
    for _ in 0..2 {
        let refused = object(&farm, job(&farm, &["-O2"], None)).await;
        assert_eq!(refused, Err(RefusalKind::Uncertified));
    }
    // Its own jobs are none of this.
    assert!(farm.link.run(farm.job("a.c", "a.o", &["-O2"])).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_that_was_not_granted_is_not_run() {
    let Some(farm) = Farm::start(1).await else { return };
    farm.write("a.c", SOURCE);
    *farm.goldens.golden.lock().expect("whole") = golden(&farm);
    // Granted for the board's toolchain alone, and for the toolchain here alone.
    for toolchain in [boards(), farm.toolchain()] {
        let mut job = job(&farm, &["-O2"], None);
        job.token = farm.token(job.grant, toolchain);
        assert_eq!(object(&farm, job).await, Err(RefusalKind::Busy));
    }
    let mut plain = job(&farm, &["-O2"], None);
    plain.run_as = None;
    assert_eq!(
        object(&farm, plain).await,
        Err(RefusalKind::Busy),
        "the pair's token is no other's"
    );
    let asked = farm.goldens.asked.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(asked, 0, "nothing was tried");
}
