//! Carries out what a job's [`Flow`] decides: one task per job, one action at a time.
//!
//! Whatever blocks runs on blocking threads, whatever waits can be dropped: when the caller goes away, so does the job,
//! with its place, its run at the worker and its children here. Decides nothing; each action ends in one event.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::build_log::BuildLog;
use super::check;
use super::closures::{Closures, Unit};
use super::compiler_run::{CompilerRun, CompilerRunner};
use super::fallback::{self, Reason};
use super::farm::{Farm, Placed};
use super::flags_class::flags_class;
use super::flow::{Action, Answer as Said, Closure, Event, Flow};
use super::inputs::InputMaker;
use super::job::{Job, Traits};
use super::learned::Learned;
use super::ledger::Ledger;
use super::local_slots::LocalSlots;
use super::locale_probe::LocaleProbes;
use super::outputs::{OutputError, stage};
use super::placing::Reach;
use super::preparation::{Order, Prepared, Trouble, argv0};
use super::profiles::Profiles;
use super::race::RaceBudget;
use super::recheck::Rechecks;
use super::socket::Answer;
use super::toolchain_resolve::{Resolved, Toolchains, Unresolved};
use super::watch::Watch;
use crate::compile::{self, Verdict, exactness, local_preprocess, text_exactness};
use crate::exchange::{CompileRequest, Wish};
use crate::ids::Name;
use crate::includes::source_tree::SourceTree;
use crate::includes::source_tree::disk::DiskTree;
use crate::job::Variants;
use crate::runtime::tasks::Tasks;

mod answers;
mod audits;
mod costs;
#[cfg(test)]
mod tests;
mod variants;

pub use audits::{Auditor, Sample};

/// For one local preprocessor run; whole minutes are possible on a loaded board.
const PREPROCESS_WAIT: Duration = Duration::from_secs(600);

/// The parts that jobs go through.
#[derive(Debug)]
pub struct Driver<F> {
    /// Toolchains of this machine.
    pub toolchains: Arc<Toolchains>,
    /// Include closures.
    pub closures: Closures,
    /// Inputs.
    pub maker: Arc<InputMaker>,
    /// Files.
    pub tree: Arc<DiskTree>,
    /// Locales.
    pub locales: LocaleProbes,
    /// What local compilers make of flags.
    pub profiles: Profiles,
    /// The local compiler.
    pub runner: CompilerRunner,
    /// Workers.
    pub farm: Arc<F>,
    /// Room for local runs.
    pub slots: LocalSlots,
    /// The counters.
    pub ledger: Arc<Ledger>,
    /// What compiles cost.
    pub learned: Arc<Learned>,
    /// What second copies have cost.
    pub races: Mutex<RaceBudget>,
    /// The last build.
    pub builds: BuildLog,
    /// Owner of all tasks.
    pub tasks: Tasks,
    /// A directory for short-lived files.
    pub scratch: PathBuf,
    /// What is under way, for people.
    pub watch: Watch,
    /// Looks at files after a run.
    pub rechecks: Rechecks,
    /// Has a share of jobs checked.
    pub auditor: Auditor<F>,
}

impl<F: Farm> Driver<F> {
    /// Takes a job from request to reply. Dropping the future cancels it.
    ///
    /// `pid` is the wrapper's process, which becomes the compiler if that runs here.
    pub async fn compile(&self, request: CompileRequest, pid: u32) -> Answer {
        let mut job = Job::new(request);
        let mut flow = Flow::new(job.request.wish, job.compiler_named());
        let mut shown = self.watch.enter(&job.request);
        let entry = self.builds.enter();
        loop {
            let began = Instant::now();
            shown.phase(flow.action(), &job.worker);
            let (name, event) = match flow.action() {
                Action::Analyse => ("analyse", self.analyse(&mut job).await),
                Action::Resolve => ("resolve", self.resolve(&mut job, flow.failures()).await),
                Action::Gather(closure) => ("scan", self.gather(&mut job, closure).await),
                Action::Preprocess => ("preprocess", self.preprocess(&mut job).await),
                Action::Place => ("place", self.place(&mut job, flow.variants()).await),
                Action::Adapt => ("adapt", self.adapt(&mut job).await),
                Action::Run => ("run", self.run(&mut job).await),
                Action::Check => ("check", self.check(&mut job).await),
                Action::Deliver => ("deliver", self.deliver(&mut job).await),
                Action::Finish => return self.finish(job, &flow, entry),
                Action::RunHere(why) => return self.run_here(job, &flow, why, pid, entry).await,
                Action::Fail(reason) => return self.fail(&job, reason),
            };
            job.phase(name, began);
            let event = event.unwrap_or_else(|trouble| Event::Failed(job.trouble(trouble)));
            flow.handle(event);
        }
    }

    async fn analyse(&self, job: &mut Job<F::Place>) -> Step {
        Ok(self.parse(job, Vec::new()).await)
    }

    /// Reads the command line with `flags` in front.
    async fn parse(&self, job: &mut Job<F::Place>, flags: Vec<std::ffi::OsString>) -> Event {
        let mut words = flags;
        words.extend(job.request.argv.iter().skip(1).cloned());
        let (request, driver) = (job.request.clone(), job.driver());
        let read = move || {
            let cwd = &request.cwd;
            compile::parse(&words, &request.env, driver, &mut |file| std::fs::read(cwd.join(file)))
        };
        let has_files = |word: &std::ffi::OsString| word.as_encoded_bytes().starts_with(b"@");
        let verdict = match job.request.argv.iter().any(has_files) {
            true => self.tasks.blocking(read).await,
            false => read(),
        };
        match verdict {
            Verdict::Remote(command) => {
                job.command = Some(Arc::new(*command));
                Event::Distributable
            }
            Verdict::Local(local) => {
                let detail = local.detail.unwrap_or_default();
                job.note(crate::exchange::escape::escape(detail.as_encoded_bytes()));
                Event::Undistributable(local.reason)
            }
        }
    }

    async fn resolve(&self, job: &mut Job<F::Place>, failures: &[Reason]) -> Step {
        if let (Some(old), Some(Reason::ToolchainChanged)) = (job.resolved.take(), failures.last()) {
            self.toolchains.forget(&old.toolchain);
        }
        let found = self.toolchains.resolve(&job.request, &*self.farm, &self.tasks).await;
        let resolved = match found {
            Ok(resolved) => resolved,
            Err(unresolved) => return Ok(self.without_toolchain(job, unresolved)),
        };
        if !resolved.flags.is_empty()
            && job.command.is_some()
            && let event @ Event::Undistributable(_) = self.parse(job, resolved.flags.clone()).await
        {
            job.resolved = Some(resolved);
            return Ok(event);
        }
        if let Some(command) = job.command.clone() {
            let order = self.order(job, &resolved, command).await?;
            job.order = Some(Arc::new(order));
        }
        job.resolved = Some(resolved);
        Ok(Event::Resolved)
    }

    fn without_toolchain(&self, job: &mut Job<F::Place>, unresolved: Unresolved) -> Event {
        let reason = unresolved.reason;
        job.note(unresolved.message.clone());
        if reason.rule().blame() == fallback::Blame::Farm {
            self.watch.remark(&unresolved.message, unresolved.hint.as_deref());
        }
        let has_compiler = unresolved.program.is_some();
        job.unresolved = Some(unresolved);
        match has_compiler {
            true => Event::Failed(reason),
            false => Event::NoCompiler(reason),
        }
    }

    async fn order(
        &self,
        job: &Job<F::Place>,
        resolved: &Resolved,
        command: Arc<compile::CompileCommand>,
    ) -> Result<Order, Trouble> {
        let wrong_language = match job.driver() {
            compile::Driver::C => resolved.language != crate::toolchains::definition::Language::C,
            compile::Driver::Cxx => resolved.language != crate::toolchains::definition::Language::Cxx,
        };
        if wrong_language {
            let note = "its name says another language than its content";
            return Err(Trouble::new(Reason::CompilerNotInToolchain, note));
        }
        let toolchain = resolved.toolchain.clone();
        let env = Arc::new(job.request.env.clone());
        let locale = self
            .locales
            .locale(toolchain.id, &resolved.program, &env, &self.runner)
            .await;
        Ok(Order {
            unit: Unit {
                command,
                program: resolved.program.clone(),
                argv0: argv0(&job.request, &resolved.program),
                flags: resolved.flags.clone(),
                cwd: job.request.cwd.clone(),
                env,
                toolchain: toolchain.number,
                toolchain_id: toolchain.id,
            },
            request: job.request.clone(),
            toolchain,
            locale,
        })
    }

    async fn gather(&self, job: &mut Job<F::Place>, closure: Closure) -> Step {
        let order = job.order.clone().ok_or_else(out_of_turn)?;
        if closure == Closure::Remembered
            && let Some(prepared) = self.recall(&order).await
        {
            let event = Event::Gathered(prepared.gathered);
            job.prepared = Some(Arc::new(prepared));
            return Ok(event);
        }
        let closure = match closure {
            Closure::Remembered | Closure::Scanned => self.closures.scan(&order.unit).await?,
            Closure::Listed => self.closures.list(&order.unit).await?,
        };
        let (maker, epoch) = (self.maker.clone(), self.tree.begin());
        let prepared = self
            .tasks
            .blocking(move || order.with_closure(&maker, epoch, Arc::new(closure)))
            .await?;
        let event = Event::Gathered(prepared.gathered);
        job.prepared = Some(Arc::new(prepared));
        Ok(event)
    }

    /// Makes the job from a closure of an earlier compile, if there is one that holds.
    async fn recall(&self, order: &Arc<Order>) -> Option<Prepared> {
        let remembered = self.closures.remembered().clone();
        let (maker, order, epoch) = (self.maker.clone(), order.clone(), self.tree.begin());
        let recall = move || {
            let closure = remembered.recall(&order.unit, epoch)?;
            // What is in the way of the job is for the scan to say.
            order.with_closure(&maker, epoch, Arc::new(closure)).ok()
        };
        self.tasks.blocking(recall).await
    }

    async fn preprocess(&self, job: &mut Job<F::Place>) -> Step {
        let order = job.order.clone().ok_or_else(out_of_turn)?;
        let inexact = |why: compile::NotExact| Trouble::new(Reason::NotSplittable, why);
        exactness(&order.unit.command).map_err(inexact)?;
        let (text, list) = self.preprocessed(&order.unit).await?;
        let (maker, epoch) = (self.maker.clone(), self.tree.begin());
        let prepared = self
            .tasks
            .blocking(move || {
                text_exactness(&text).map_err(inexact)?;
                order.with_text(&maker, epoch, text, list)
            })
            .await?;
        let event = Event::Gathered(prepared.gathered);
        job.prepared = Some(Arc::new(prepared));
        Ok(event)
    }

    /// Runs the local preprocessor. Returns its text, and the list of dependencies if the user asked for one.
    async fn preprocessed(&self, unit: &Unit) -> Result<(Vec<u8>, Option<Vec<u8>>), Trouble> {
        let failed = |error: &dyn std::fmt::Display| Trouble::new(Reason::PreprocessorDiagnostics, error);
        let scratch = tempfile::Builder::new()
            .prefix("text-")
            .tempdir_in(&self.scratch)
            .map_err(|error| failed(&error))?;
        let (text, list) = (scratch.path().join("text"), scratch.path().join("list"));
        let mut command = (*unit.command).clone();
        if let Some(asked) = &mut command.dependencies {
            asked.file = list.clone();
        }
        let mut words = unit.flags.clone();
        words.extend(local_preprocess(&command, &text));
        let run = CompilerRun {
            program: unit.program.clone(),
            argv0: unit.argv0.clone(),
            words,
            cwd: unit.cwd.clone(),
            env: unit.env.to_vec(),
            stdin: Vec::new(),
        };
        let said = self
            .runner
            .run(run, PREPROCESS_WAIT)
            .await
            .map_err(|error| failed(&error))?;
        if !said.status.success() || !said.stderr.is_empty() {
            // Said again, and properly, by the local compile.
            return Err(Trouble::new(Reason::PreprocessorDiagnostics, ""));
        }
        let read = move || {
            let _keep = scratch;
            let list = command
                .dependencies
                .is_some()
                .then(|| std::fs::read(&list))
                .transpose()?;
            std::io::Result::Ok((std::fs::read(&text)?, list))
        };
        self.tasks.blocking(read).await.map_err(|error| failed(&error))
    }

    async fn place(&self, job: &mut Job<F::Place>, allowed: Variants) -> Step {
        job.on_variant(None);
        let variants = self.variants_for(job, allowed);
        let prepared = job.prepared.as_ref().ok_or_else(out_of_turn)?;
        let command = job.command.as_ref().ok_or_else(out_of_turn)?;
        let traits = Traits {
            toolchain: prepared.spec.toolchain,
            source: prepared.spec.cwd.join(&command.source),
            flags_class: flags_class(command),
            closure_bytes: prepared.inputs.bytes,
        };
        let prediction = self.learned.predict(traits.features());
        let reach = match job.request.wish {
            Wish::NoFallback => Reach::Workers,
            Wish::Anywhere | Wish::Here => Reach::Anywhere,
        };
        let mut want = self.want(&traits, prediction, reach);
        (want.ask.avoid, want.ask.only) = (std::mem::take(&mut job.avoid), job.request.worker.clone());
        want.ask.variants = variants;
        (job.traits, job.prediction) = (Some(traits), Some(prediction));
        let anew = (!want.ask.avoid.is_empty()).then(|| want.with_any_worker());
        let placed = match (self.farm.place(want).await, anew) {
            // Nobody else has a place for it: one that failed it may do better this time.
            (Err(trouble), Some(anew)) if trouble.reason != Reason::NoCoordinator => self.farm.place(anew).await,
            (placed, _) => placed,
        };
        let placed = placed.inspect_err(|trouble| {
            if trouble.reason == Reason::ToolchainNotOnFarm {
                let complaint = job.complaint(trouble.reason, "");
                self.watch.remark(&complaint.error, complaint.hint.as_deref());
            }
        })?;
        Ok(match placed {
            Placed::There(place) => {
                F::worker(&place).clone_into(&mut job.worker);
                job.power = F::power(&place);
                let stand_in = F::stand_in(&place);
                job.on_variant(stand_in);
                let event = stand_in.map_or(Event::Placed, |_| Event::PlacedOnVariant);
                job.place = Some(place);
                event
            }
            Placed::Here(choice, stay) => {
                job.here = Some(stay);
                Event::StaysHere(choice)
            }
        })
    }

    async fn run(&self, job: &mut Job<F::Place>) -> Step {
        let prepared = job.running().ok_or_else(out_of_turn)?;
        let place = job.place.take().ok_or_else(out_of_turn)?;
        job.asked = Some(Instant::now());
        let ran = match self.run_or_race(job, place, prepared).await {
            Ok(ran) => ran,
            Err(trouble) => {
                self.note_variant(job, trouble.reason);
                if trouble.reason.is_of_worker() {
                    job.avoid.extend(Name::new(&job.worker));
                }
                return Err(trouble);
            }
        };
        job.carried(ran.bytes_sent, ran.bytes_received);
        job.slot = ran.slot;
        let outcome = self.sample(job, ran.outcome).await;
        let success = outcome.status.success();
        self.learn(job, &outcome);
        let said = Said {
            success,
            spoke: !outcome.stdout.is_empty() || !outcome.stderr.is_empty(),
            suspect: !success && fallback::is_suspect(&outcome.stderr),
        };
        job.outcome = Some(outcome);
        Ok(Event::Answered(said))
    }

    async fn check(&self, job: &mut Job<F::Place>) -> Step {
        let prepared = job.running().ok_or_else(out_of_turn)?;
        let order = job.order.clone().ok_or_else(out_of_turn)?;
        let mut outcome = job.outcome.take().ok_or_else(out_of_turn)?;
        let asked = job.asked.ok_or_else(out_of_turn)?;
        let epoch = self
            .rechecks
            .epoch(&self.tree, asked, outcome.usage.wall, Instant::now());
        let tree = self.tree.clone();
        let remembered = self.closures.remembered().clone();
        let (outcome, checked) = self
            .tasks
            .blocking(move || {
                let target = &order.toolchain.definition.target;
                let checked = check::check(&prepared, &mut outcome, &tree, epoch, target);
                if let (Ok(_), Some(closure)) = (&checked, &prepared.closure)
                    && outcome.status.success()
                {
                    remembered.learn(&order.unit, closure);
                }
                (outcome, checked)
            })
            .await;
        job.outcome = Some(outcome);
        job.outputs = checked?;
        Ok(Event::Checked)
    }

    async fn deliver(&self, job: &mut Job<F::Place>) -> Step {
        let prepared = job.running().ok_or_else(out_of_turn)?;
        let outputs = std::mem::take(&mut job.outputs);
        self.tasks
            .blocking(move || stage(outputs, &prepared.expected.object)?.commit())
            .await?;
        Ok(Event::Delivered)
    }
}

/// What an action leads to.
type Step = Result<Event, Trouble>;

/// An action was asked for before what it needs was there: a bug, which ends this job only.
fn out_of_turn() -> Trouble {
    Trouble::new(Reason::Internal, "an action out of turn")
}

impl From<OutputError> for Trouble {
    fn from(error: OutputError) -> Self {
        let reason = match &error {
            OutputError::MissingDirectory(_) => Reason::OutputDirectoryMissing,
            OutputError::Special(_) => Reason::OutputSpecial,
            OutputError::NotWritable { .. } => Reason::OutputNotWritable,
            OutputError::Write { .. } => Reason::OutputFailed,
            OutputError::Twice(_) => Reason::OutputUnexpected,
        };
        Self::new(reason, error)
    }
}
