//! Other rules of placement, as their programs' documentation and behaviour tell of them. They are given more than they
//! have in life: they know at once when a slot is free, and lose nothing on the client.

use std::collections::VecDeque;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Node;
use super::engine::{Job, Placed, Placer};

/// How long a client that finds all hosts full sleeps, seconds (distcc).
const POLL: f64 = 1.0;

/// Which rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The first host of a list with a free slot, strongest first as told; a look a second when all are full (distcc).
    ListOrder,
    /// The host with the least jobs per slot (sccache-dist).
    LeastLoaded,
    /// The fastest by what it has done so far, less for each job that it has; one in twenty anywhere (icecream).
    Icecream,
    /// Told power times free slots (rdcc before it learned).
    PowerTimesFree,
}

/// A farm placed by such a rule.
#[derive(Debug)]
pub struct Rival {
    rule: Rule,
    nodes: Vec<Node>,
    work: Vec<Vec<f64>>,
    there: Vec<bool>,
    busy: Vec<usize>,
    speed: Vec<f64>,
    waiting: VecDeque<(Job, f64)>,
    random: ChaCha8Rng,
}

impl Rival {
    pub fn new(rule: Rule, nodes: &[Node], builds: &[super::Build]) -> Self {
        Self {
            rule,
            nodes: nodes.to_vec(),
            work: builds.iter().map(|build| build.work.clone()).collect(),
            there: vec![false; nodes.len()],
            busy: vec![0; nodes.len()],
            speed: nodes.iter().map(|node| node.told).collect(),
            waiting: VecDeque::new(),
            random: ChaCha8Rng::seed_from_u64(1),
        }
    }

    fn free(&self, node: usize) -> usize {
        if self.there[node] {
            self.nodes[node].slots - self.busy[node]
        } else {
            0
        }
    }

    fn choose(&mut self) -> Option<usize> {
        let free: Vec<usize> = (0..self.nodes.len()).filter(|node| self.free(*node) > 0).collect();
        if self.rule == Rule::Icecream && !free.is_empty() && self.random.random_bool(0.05) {
            return Some(free[self.random.random_range(0..free.len())]);
        }
        let load = |node: usize| self.busy[node] as f64 / self.nodes[node].slots as f64;
        let score = |node: usize| match self.rule {
            Rule::ListOrder => self.nodes[node].told * 1e6 - node as f64,
            Rule::LeastLoaded => -load(node),
            Rule::Icecream => self.speed[node] * (1.0 - load(node) / 2.0),
            Rule::PowerTimesFree => self.nodes[node].told * self.free(node) as f64,
        };
        free.into_iter()
            .max_by(|a, b| score(*a).total_cmp(&score(*b)).then(b.cmp(a)))
    }

    fn serve(&mut self, now: f64) -> Placed {
        let mut placed = Vec::new();
        let polls = self.rule == Rule::ListOrder;
        let mut later = VecDeque::new();
        while let Some((job, looks)) = self.waiting.pop_front() {
            if polls && looks > now {
                later.push_back((job, looks));
                continue;
            }
            match self.choose() {
                Some(node) => {
                    self.busy[node] += 1;
                    placed.push((job, node));
                }
                None => later.push_back((job, now + POLL)),
            }
        }
        self.waiting = later;
        placed
    }
}

impl Placer for Rival {
    fn want(&mut self, job: Job, _: Option<usize>, now: f64) -> Placed {
        self.waiting.push_back((job, now));
        self.serve(now)
    }

    fn ended(&mut self, job: Job, node: usize, wall: f64, now: f64) -> Placed {
        self.busy[node] -= 1;
        let seen = self.work[job.0][job.1] / wall;
        self.speed[node] += 0.2 * (seen - self.speed[node]);
        self.serve(now)
    }

    fn joined(&mut self, node: usize, now: f64) -> Placed {
        self.there[node] = true;
        self.serve(now)
    }

    fn left(&mut self, node: usize, _: f64) -> Placed {
        self.there[node] = false;
        self.busy[node] = 0;
        Vec::new()
    }

    fn next(&self) -> Option<f64> {
        let polls = self.rule == Rule::ListOrder;
        let looks = self.waiting.iter().map(|(_, looks)| *looks);
        looks.min_by(f64::total_cmp).filter(|_| polls)
    }

    fn tick(&mut self, now: f64) -> Placed {
        self.serve(now)
    }
}
