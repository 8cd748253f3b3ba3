//! Tables for single decisions, and the property that everything else rests on: whatever jobs come, overlap and end,
//! each running job sees exactly what it listed.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::job::Input;

fn file(content: u8) -> InputKind {
    InputKind::File {
        digest: Digest::of(&[content]),
        size: 1,
        mode: 0o644,
        mtime_ns: 0,
    }
}

fn link(target: &str) -> InputKind {
    InputKind::Symlink(target.into())
}

/// A tree on disk, as the changes make it.
#[derive(Debug, Clone)]
struct Disk(BTreeMap<PathBuf, Standing>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    Directory,
    Kind(InputKind),
}

impl Disk {
    fn apply(&mut self, catalog: &Catalog, change: &Change) {
        let path = catalog.full_path(change.path);
        let standing = |cell: Cell| match cell {
            Cell::NOTHING => None,
            Cell::DIRECTORY => Some(Standing::Directory),
            cell => Some(Standing::Kind((**catalog.kind(cell).expect("known")).clone())),
        };
        let parent = path.parent().expect("never the root");
        assert_eq!(self.0.get(parent), Some(&Standing::Directory), "parent of {path:?}");
        assert_eq!(self.0.get(&path).cloned(), standing(change.from), "{path:?}");
        match standing(change.to) {
            Some(new) => self.0.insert(path, new),
            None => self.0.remove(&path),
        };
    }

    /// Looks a path up as the kernel does, a link at its end not followed.
    fn look(&self, path: &Path, links: u32) -> Option<(PathBuf, &Standing)> {
        let mut at = PathBuf::from("/");
        let mut names: Vec<OsString> = path.iter().skip(1).map(OsString::from).collect();
        names.reverse();
        while let Some(name) = names.pop() {
            if self.0.get(&at) != Some(&Standing::Directory) {
                return None;
            }
            if name == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&name);
            match self.0.get(&next)? {
                Standing::Kind(InputKind::Symlink(target)) if !names.is_empty() => {
                    let target = at.join(target);
                    let (real, _) = self.follow(&target, links + 1)?;
                    at = real;
                }
                _ => at = next,
            }
        }
        let standing = self.0.get(&at)?;
        Some((at, standing))
    }

    fn follow(&self, path: &Path, links: u32) -> Option<(PathBuf, &Standing)> {
        if links > 40 {
            return None;
        }
        let (at, standing) = self.look(path, links)?;
        match standing {
            Standing::Kind(InputKind::Symlink(target)) => {
                let target = at.parent().expect("a link is below the root").join(target);
                self.follow(&target, links + 1)
            }
            _ => Some((at, standing)),
        }
    }

    fn shows(&self, input: &Input) -> bool {
        match &input.kind {
            InputKind::Absent => self.look(&input.path, 0).is_none(),
            InputKind::Directory => matches!(self.follow(&input.path, 0), Some((_, Standing::Directory))),
            InputKind::Symlink(_) => {
                matches!(self.look(&input.path, 0), Some((_, Standing::Kind(kind))) if *kind == input.kind)
            }
            InputKind::File { digest, .. } => match self.follow(&input.path, 0) {
                Some((_, Standing::Kind(InputKind::File { digest: found, .. }))) => found == digest,
                _ => false,
            },
        }
    }
}

/// Generations with their disks, used as the mirror uses them.
struct World {
    catalog: Catalog,
    base: Arc<Base>,
    empty: Disk,
    generations: Vec<(Generation, Disk)>,
    /// Generation, what was listed, and its numbers.
    running: Vec<(usize, Vec<Input>, Vec<EntryId>)>,
}

impl World {
    fn new(base: &[(&str, BaseKind)]) -> Self {
        let mut catalog = Catalog::default();
        let mut empty = Disk(BTreeMap::from([("/".into(), Standing::Directory)]));
        let mut entries = vec![(PathId::ROOT, BaseKind::Directory)];
        for (path, kind) in base {
            entries.push((catalog.path(Path::new(path)).expect("room"), kind.clone()));
            let standing = match kind {
                BaseKind::Directory | BaseKind::Reserved => Standing::Directory,
                BaseKind::Symlink(target) => Standing::Kind(InputKind::Symlink(target.clone())),
                BaseKind::File { digest } => Standing::Kind(InputKind::File {
                    digest: *digest,
                    size: 1,
                    mode: 0,
                    mtime_ns: 0,
                }),
            };
            empty.0.insert(path.into(), standing);
        }
        Self {
            catalog,
            base: Arc::new(Base { entries }),
            empty,
            generations: Vec::new(),
            running: Vec::new(),
        }
    }

    /// Starts a job in the newest generation, or in a new one; returns which.
    fn start(&mut self, inputs: &[Input]) -> Result<usize, Stop> {
        let entries: Vec<EntryId> = inputs
            .iter()
            .map(|input| self.catalog.define(input).expect("room"))
            .collect();
        let planned = match self.generations.last_mut() {
            Some((newest, _)) => newest.plan(&mut self.catalog, &entries),
            None => Err(Stop::Stale),
        };
        let plan = match planned {
            Err(Stop::Stale) => {
                let mut generation = Generation::new(self.base.clone());
                let plan = generation.plan(&mut self.catalog, &entries);
                assert_ne!(plan, Err(Stop::Stale), "a new generation suits every job or none does");
                let plan = plan?;
                self.generations.push((generation, self.empty.clone()));
                plan
            }
            planned => planned?,
        };
        let index = self.generations.len() - 1;
        let (generation, disk) = &mut self.generations[index];
        for change in &plan.changes {
            disk.apply(&self.catalog, change);
        }
        generation.begin(&self.catalog, &plan, &entries);
        self.running.push((index, inputs.to_vec(), entries));
        Ok(index)
    }

    fn end(&mut self, which: usize) {
        let (index, _, entries) = self.running.remove(which);
        self.generations[index].0.end(&entries);
    }

    fn check(&self) {
        for (index, inputs, _) in &self.running {
            let disk = &self.generations[*index].1;
            for input in inputs {
                assert!(disk.shows(input), "{input:?} in generation {index}: {disk:#?}");
            }
        }
    }
}

fn inputs(list: &[(&str, InputKind)]) -> Vec<Input> {
    let input = |(path, kind): &(&str, InputKind)| Input {
        path: path.into(),
        kind: kind.clone(),
    };
    list.iter().map(input).collect()
}

fn toolchain() -> World {
    World::new(&[
        ("/usr", BaseKind::Directory),
        ("/usr/lib", BaseKind::Directory),
        (
            "/usr/lib/libc.so",
            BaseKind::File {
                digest: Digest::of(&[9]),
            },
        ),
        ("/usr/lib/link", BaseKind::Symlink("libc.so".into())),
        ("/lib", BaseKind::Symlink("usr/lib".into())),
        ("/proc", BaseKind::Reserved),
    ])
}

#[test]
fn known_inputs_change_nothing() {
    let mut world = toolchain();
    let list = inputs(&[
        ("/src/a.c", file(1)),
        ("/src/inc", InputKind::Directory),
        ("/src/b.h", InputKind::Absent),
    ]);
    assert_eq!(world.start(&list), Ok(0));
    let entries = world.running[0].2.clone();
    let plan = world.generations[0]
        .0
        .plan(&mut world.catalog, &entries)
        .expect("suits");
    assert!(plan.changes.is_empty());
    world.check();
}

#[test]
fn replaced_content_waits_for_nobody_when_no_job_uses_it() {
    let mut world = toolchain();
    assert_eq!(world.start(&inputs(&[("/src/a.c", file(1))])), Ok(0));
    world.end(0);
    assert_eq!(world.start(&inputs(&[("/src/a.c", file(2))])), Ok(0));
    assert_eq!(
        world.start(&inputs(&[("/src/a.c", InputKind::Absent)])),
        Ok(1),
        "still in use"
    );
    assert_eq!(world.start(&inputs(&[("/src/a.c", file(3))])), Ok(2));
    world.check();
}

#[test]
fn links_are_followed_inside_the_tree_only() {
    let mut world = toolchain();
    let list = inputs(&[
        ("/up", link("../../../etc")),
        ("/up/passwd", file(1)),
        ("/lib/x.h", file(2)),
        ("/usr/lib/x.h", file(2)),
        ("/d/l", link("/d/real")),
        ("/d/l/x", file(3)),
        ("/d/l/y", InputKind::Absent),
    ]);
    assert_eq!(world.start(&list), Ok(0));
    world.check();
    let disk = &world.generations[0].1;
    for path in ["/etc/passwd", "/usr/lib/x.h", "/d/real/x"] {
        assert!(disk.0.contains_key(Path::new(path)), "{path}");
    }
}

#[test]
fn toolchain_files_may_be_listed_but_not_replaced() {
    let check = |path: &str, kind: InputKind| toolchain().start(&inputs(&[(path, kind)]));
    assert_eq!(check("/usr/lib/libc.so", file(9)), Ok(0));
    assert_eq!(check("/lib/libc.so", file(9)), Ok(0));
    assert_eq!(check("/lib/link", file(9)), Ok(0));
    assert_eq!(check("/lib", link("usr/lib")), Ok(0));
    assert_eq!(check("/lib", InputKind::Directory), Ok(0));
    let differs = |path: &str| Err(Stop::Toolchain(path.into()));
    assert_eq!(check("/usr/lib/libc.so", file(1)), differs("/usr/lib/libc.so"));
    assert_eq!(check("/lib/link", file(1)), differs("/usr/lib/libc.so"));
    assert_eq!(
        check("/usr/lib/libc.so", InputKind::Absent),
        differs("/usr/lib/libc.so")
    );
    assert_eq!(check("/usr/lib/libc.so/x", file(1)), differs("/usr/lib/libc.so"));
    assert_eq!(check("/usr/lib/libc.so/x", InputKind::Absent), Ok(0));
    assert_eq!(check("/lib", file(1)), differs("/usr/lib"));
}

#[test]
fn hostile_lists_are_refused() {
    let check = |list: &[(&str, InputKind)]| toolchain().start(&inputs(list)).expect_err("refused");
    let contradiction = |path: &str| Stop::Contradiction(path.into());
    assert_eq!(check(&[("/a", file(1)), ("/a/b", file(2))]), contradiction("/a"));
    assert_eq!(check(&[("/a/b", file(2)), ("/a", file(1))]), contradiction("/a"));
    assert_eq!(
        check(&[("/a", InputKind::Absent), ("/a/b", file(2))]),
        contradiction("/a")
    );
    assert_eq!(check(&[("/a", file(1)), ("/a", file(2))]), contradiction("/a"));
    assert_eq!(
        check(&[("/l", link("usr")), ("/l/x", file(1)), ("/usr/x", file(2))]),
        contradiction("/usr/x")
    );
    assert_eq!(check(&[("/", file(1))]), Stop::Toolchain("/".into()));
    assert_eq!(check(&[("/proc/1/mem", file(1))]), Stop::Reserved("/proc".into()));
    assert_eq!(
        check(&[("/p", link("/proc")), ("/p/x", file(1))]),
        Stop::Reserved("/proc".into())
    );
    assert_eq!(
        check(&[("/l", link("m")), ("/m", link("l")), ("/l/x", file(1))]),
        Stop::Links("/l/x".into())
    );
}

#[test]
fn switched_link_gets_a_new_generation() {
    let mut world = toolchain();
    assert_eq!(
        world.start(&inputs(&[("/asm", link("arm")), ("/asm/x.h", file(1))])),
        Ok(0)
    );
    world.end(0);
    assert_eq!(
        world.start(&inputs(&[("/asm", link("mips")), ("/asm/x.h", file(2))])),
        Ok(1)
    );
    world.check();
}

fn any_input() -> impl Strategy<Value = Input> {
    let name = prop::sample::select(vec!["a", "b", "c", "usr", "lib"]);
    let path = prop::collection::vec(name, 1..4).prop_map(|names| format!("/{}", names.join("/")));
    let target = prop::sample::select(vec!["a", "b", "../b", "/c", "/usr/lib", "b/c", "../../.."]);
    let kind = prop_oneof![
        6 => (0..3u8).prop_map(file),
        2 => target.prop_map(link),
        1 => Just(InputKind::Directory),
        3 => Just(InputKind::Absent),
    ];
    (path, kind).prop_map(|(path, kind)| Input {
        path: path.into(),
        kind,
    })
}

#[derive(Debug, Clone)]
enum Step {
    Start(Vec<Input>),
    End(usize),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => prop::collection::vec(any_input(), 1..6).prop_map(Step::Start),
        2 => any::<usize>().prop_map(Step::End),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn running_jobs_see_exactly_what_they_listed(steps in prop::collection::vec(any_step(), 1..40)) {
        let mut world = toolchain();
        for step in steps {
            match step {
                // A refusal leaves everything as it was, which the check below sees.
                Step::Start(list) => drop(world.start(&list)),
                Step::End(which) if !world.running.is_empty() => world.end(which % world.running.len()),
                Step::End(_) => {}
            }
            world.check();
        }
    }
}
