//! The course of a bout: clients, nodes, and whichever rule places the jobs.

use std::collections::{BTreeMap, VecDeque};

use super::{Build, CLIENT_CORES, Node, Outcome};

/// Time of a message, seconds.
const MESSAGE: f64 = 0.001;
/// How long it takes to notice that a job's node is gone.
const NOTICE: f64 = 1.0;

/// A job: number of the build, number in it.
pub type Job = (usize, usize);

/// What a rule has decided: these jobs on these nodes.
pub type Placed = Vec<(Job, usize)>;

/// What places jobs. Times are seconds.
pub trait Placer {
    /// A job is ready. `lost_on` is the node that it was lost on.
    fn want(&mut self, job: Job, lost_on: Option<usize>, now: f64) -> Placed;
    /// A job has ended on a node.
    fn ended(&mut self, job: Job, node: usize, wall: f64, now: f64) -> Placed;
    /// A node is there.
    fn joined(&mut self, node: usize, now: f64) -> Placed;
    /// A node is gone.
    fn left(&mut self, node: usize, now: f64) -> Placed;
    /// When it wants to be woken.
    fn next(&self) -> Option<f64>;
    /// Time has passed.
    fn tick(&mut self, now: f64) -> Placed;
}

/// One that is looked at after the build.
impl<P: Placer> Placer for &mut P {
    fn want(&mut self, job: Job, lost_on: Option<usize>, now: f64) -> Placed {
        (**self).want(job, lost_on, now)
    }

    fn ended(&mut self, job: Job, node: usize, wall: f64, now: f64) -> Placed {
        (**self).ended(job, node, wall, now)
    }

    fn joined(&mut self, node: usize, now: f64) -> Placed {
        (**self).joined(node, now)
    }

    fn left(&mut self, node: usize, now: f64) -> Placed {
        (**self).left(node, now)
    }

    fn next(&self) -> Option<f64> {
        (**self).next()
    }

    fn tick(&mut self, now: f64) -> Placed {
        (**self).tick(now)
    }
}

#[derive(Debug, Clone, Copy)]
enum Happening {
    Prepared(Job),
    Want(Job, Option<usize>),
    Starts(Job, usize),
    Ends(Job, usize, u64),
    Told(Job, usize),
    Joins(usize),
    Dies(usize),
    Throttles(usize),
}

struct Running {
    node: usize,
    started: f64,
    left: f64,
    since: f64,
    version: u64,
}

struct Client {
    next: usize,
    in_flight: usize,
    preparing: usize,
    to_prepare: VecDeque<usize>,
    ended: usize,
}

struct Course<'a, P> {
    nodes: &'a [Node],
    builds: &'a [Build],
    placer: P,
    now: f64,
    queue: BTreeMap<(u64, u64), Happening>,
    number: u64,
    clients: Vec<Client>,
    running: BTreeMap<Job, Running>,
    used: Vec<usize>,
    done: Vec<f64>,
    outcome: Outcome,
}

/// Runs builds that begin together, to their end.
pub fn run(nodes: &[Node], builds: &[Build], placer: impl Placer) -> Outcome {
    let client = || Client {
        next: 0,
        in_flight: 0,
        preparing: 0,
        to_prepare: VecDeque::new(),
        ended: 0,
    };
    let mut course = Course {
        nodes,
        builds,
        placer,
        now: 0.0,
        queue: BTreeMap::new(),
        number: 0,
        clients: builds.iter().map(|_| client()).collect(),
        running: BTreeMap::new(),
        used: vec![0; nodes.len()],
        done: vec![0.0; builds.len()],
        outcome: Outcome {
            walls: vec![0.0; builds.len()],
            done_at_first_end: Vec::new(),
            jobs_on: vec![0; nodes.len()],
        },
    };
    for (index, node) in nodes.iter().enumerate() {
        course.after(node.joins, Happening::Joins(index));
        if node.dies.is_finite() {
            course.after(node.dies, Happening::Dies(index));
        }
        if let Some((from, _)) = node.throttled {
            course.after(from, Happening::Throttles(index));
        }
    }
    while course.advance() {}
    course.outcome
}

impl<P: Placer> Course<'_, P> {
    fn after(&mut self, wait: f64, happening: Happening) {
        self.number += 1;
        let at = ((self.now + wait) * 1e6).round() as u64;
        self.queue.insert((at, self.number), happening);
    }

    fn advance(&mut self) -> bool {
        if self
            .clients
            .iter()
            .zip(self.builds)
            .all(|(client, build)| client.ended == build.work.len())
        {
            return false;
        }
        let next = self.queue.first_key_value().map(|((at, _), _)| *at as f64 / 1e6);
        let tick = self.placer.next();
        assert!(self.now < 10_000.0, "the builds do not end");
        match (next, tick) {
            (next, Some(tick)) if next.is_none_or(|next| tick <= next) => {
                self.now = self.now.max(tick);
                let placed = self.placer.tick(self.now);
                self.place(placed);
            }
            (None, _) => panic!("nothing is left to happen, and the builds have not ended"),
            (Some(next), _) => {
                self.now = self.now.max(next);
                let (_, happening) = self.queue.pop_first().expect("it was looked at");
                self.happens(happening);
                for build in 0..self.builds.len() {
                    self.make(build);
                }
            }
        }
        true
    }

    /// `make`: keeps its window full, as far as the client's cores allow.
    fn make(&mut self, build: usize) {
        let (client, spec) = (&mut self.clients[build], &self.builds[build]);
        let window = |begun: usize| if begun < spec.window { spec.window } else { spec.settled };
        while client.in_flight < window(client.next) && client.next < spec.work.len() {
            client.to_prepare.push_back(client.next);
            client.next += 1;
            client.in_flight += 1;
        }
        while self.clients[build].preparing < CLIENT_CORES
            && let Some(number) = self.clients[build].to_prepare.pop_front()
        {
            self.clients[build].preparing += 1;
            self.after(self.builds[build].client, Happening::Prepared((build, number)));
        }
    }

    fn place(&mut self, placed: Placed) {
        for (job, node) in placed {
            self.used[node] += 1;
            assert!(self.used[node] <= self.nodes[node].slots, "node {node} was sold twice");
            self.after(MESSAGE, Happening::Starts(job, node));
        }
    }

    fn happens(&mut self, happening: Happening) {
        let placed = match happening {
            Happening::Prepared(job) => {
                self.clients[job.0].preparing -= 1;
                self.after(MESSAGE, Happening::Want(job, None));
                Vec::new()
            }
            Happening::Want(job, lost_on) => self.placer.want(job, lost_on, self.now),
            Happening::Starts(job, node) => {
                self.start(job, node);
                Vec::new()
            }
            Happening::Ends(job, node, version) => {
                if self.running.get(&job).is_some_and(|running| running.version == version) {
                    self.after(MESSAGE, Happening::Told(job, node));
                }
                Vec::new()
            }
            Happening::Told(job, node) => match self.running.remove(&job) {
                Some(running) => {
                    self.used[node] -= 1;
                    self.end(job);
                    self.placer.ended(job, node, self.now - running.started, self.now)
                }
                None => Vec::new(),
            },
            Happening::Joins(node) => self.placer.joined(node, self.now),
            Happening::Throttles(node) => {
                self.change_pace(node);
                Vec::new()
            }
            Happening::Dies(node) => {
                let lost = self.running.iter().filter(|(_, running)| running.node == node);
                let lost: Vec<Job> = lost.map(|(job, _)| *job).collect();
                for job in lost {
                    self.running.remove(&job);
                    self.after(NOTICE, Happening::Want(job, Some(node)));
                }
                self.used[node] = 0;
                self.placer.left(node, self.now)
            }
        };
        self.place(placed);
    }

    fn start(&mut self, job: Job, node: usize) {
        if self.nodes[node].power_at(self.now) <= 0.0 {
            // Placed just as the node died.
            return self.after(NOTICE, Happening::Want(job, Some(node)));
        }
        self.outcome.jobs_on[node] += 1;
        let running = Running {
            node,
            started: self.now,
            left: self.builds[job.0].work[job.1],
            since: self.now,
            version: 0,
        };
        self.running.insert(job, running);
        self.set_end(job);
    }

    fn set_end(&mut self, job: Job) {
        let running = self.running.get_mut(&job).expect("it runs");
        running.version = self.number;
        let (node, version) = (running.node, running.version);
        let wait = running.left / self.nodes[node].power_at(self.now);
        self.after(wait, Happening::Ends(job, node, version));
    }

    fn change_pace(&mut self, node: usize) {
        let there: Vec<Job> = self
            .running
            .iter()
            .filter(|(_, running)| running.node == node)
            .map(|(job, _)| *job)
            .collect();
        for job in there {
            let running = self.running.get_mut(&job).expect("it runs");
            running.left = (running.left - (self.now - running.since) * self.nodes[node].power).max(0.0);
            running.since = self.now;
            self.set_end(job);
        }
    }

    fn end(&mut self, job: Job) {
        let client = &mut self.clients[job.0];
        client.in_flight -= 1;
        client.ended += 1;
        self.done[job.0] += self.builds[job.0].work[job.1];
        if client.ended == self.builds[job.0].work.len() {
            self.outcome.walls[job.0] = self.now;
            if self.outcome.done_at_first_end.is_empty() {
                self.outcome.done_at_first_end = self.done();
            }
        }
    }

    /// Work of each build that is done, that of running jobs in part.
    fn done(&self) -> Vec<f64> {
        let mut done = self.done.clone();
        for (job, running) in &self.running {
            let since = (self.now - running.since) * self.nodes[running.node].power_at(self.now);
            let left = (running.left - since).max(0.0);
            done[job.0] += self.builds[job.0].work[job.1] - left;
        }
        done
    }
}
