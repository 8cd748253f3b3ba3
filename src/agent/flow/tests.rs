//! Whole lives of jobs, as tables of events and the actions they lead to.

use super::*;

const QUIET: Event = Event::Answered(Answer {
    success: true,
    spoke: false,
    suspect: false,
});

const COMPILE_ERROR: Event = Event::Answered(Answer {
    success: false,
    spoke: true,
    suspect: false,
});

fn gathered() -> Event {
    Event::Gathered(Gathered::default())
}

/// Feeds `events` to a fresh job and returns every action, the first included.
fn life(wish: Wish, compiler: CompilerNamed, events: &[Event]) -> (Vec<Action>, Flow) {
    let mut flow = Flow::new(wish, compiler);
    let mut actions = vec![flow.action()];
    actions.extend(events.iter().map(|event| flow.handle(*event)));
    (actions, flow)
}

fn ends(events: &[Event], last: Action) {
    let (actions, _) = life(Wish::Anywhere, CompilerNamed::Yes, events);
    assert_eq!(actions.last(), Some(&last), "{events:?} led to {actions:?}");
}

const START: [Event; 2] = [Event::Distributable, Event::Resolved];

fn after_start(events: &[Event]) -> Vec<Event> {
    START.iter().chain(events).copied().collect()
}

#[test]
fn undisturbed_job_goes_through_every_step_once() {
    let events = after_start(&[gathered(), Event::Placed, QUIET, Event::Checked, Event::Delivered]);
    let (actions, flow) = life(Wish::Anywhere, CompilerNamed::Yes, &events);
    assert_eq!(
        actions,
        [
            Action::Analyse,
            Action::Resolve,
            Action::Gather(Closure::Remembered),
            Action::Place,
            Action::Run,
            Action::Check,
            Action::Deliver,
            Action::Finish,
        ]
    );
    assert!(flow.failures().is_empty());
}

#[test]
fn compiler_error_is_checked_and_passed_on_without_a_second_run() {
    ends(
        &after_start(&[
            gathered(),
            Event::Placed,
            COMPILE_ERROR,
            Event::Checked,
            Event::Delivered,
        ]),
        Action::Finish,
    );
}

#[test]
fn undistributable_commands_run_here() {
    let reason = LocalReason::Link;
    let here = Action::RunHere(Why::Command(reason));
    ends(&[Event::Undistributable(reason)], here);
    let (actions, _) = life(
        Wish::Anywhere,
        CompilerNamed::No,
        &[Event::Undistributable(reason), Event::Resolved],
    );
    assert_eq!(actions, [Action::Analyse, Action::Resolve, here]);
    // A farm that has a problem with the toolchain is no concern of a link, strict or not.
    let (actions, _) = life(
        Wish::NoFallback,
        CompilerNamed::No,
        &[
            Event::Undistributable(reason),
            Event::Failed(Reason::ToolchainNotOnFarm),
        ],
    );
    assert_eq!(actions.last(), Some(&here));
}

#[test]
fn without_a_compiler_there_is_nothing_to_fall_back_to() {
    ends(
        &[Event::Distributable, Event::NoCompiler(Reason::ToolchainUnknown)],
        Action::Fail(Reason::ToolchainUnknown),
    );
}

#[test]
fn disabled_means_here() {
    let here = Some(&Action::RunHere(Why::Failure(Reason::Disabled)));
    let (actions, _) = life(Wish::Here, CompilerNamed::Yes, &[Event::Distributable]);
    assert_eq!(actions.last(), here);
    let (actions, _) = life(Wish::Here, CompilerNamed::No, &START);
    assert_eq!(actions.last(), here);
}

#[test]
fn lost_worker_means_another_place_for_the_same_job() {
    let events = after_start(&[
        gathered(),
        Event::Placed,
        Event::Failed(Reason::WorkerLost),
        Event::Placed,
        QUIET,
    ]);
    let (actions, flow) = life(Wish::Anywhere, CompilerNamed::Yes, &events);
    assert_eq!(actions[4..], [Action::Run, Action::Place, Action::Run, Action::Check]);
    assert_eq!(flow.failures(), [Reason::WorkerLost]);
}

#[test]
fn changed_file_means_a_scan_of_the_files_as_they_are_now() {
    ends(
        &after_start(&[gathered(), Event::Placed, QUIET, Event::Failed(Reason::FileChanged)]),
        Action::Gather(Closure::Scanned),
    );
}

#[test]
fn job_that_ends_sooner_here_runs_here_and_that_is_no_failure() {
    for choice in [Choice::FasterHere, Choice::FarmFull] {
        let events = after_start(&[gathered(), Event::StaysHere(choice)]);
        let (actions, flow) = life(Wish::Anywhere, CompilerNamed::Yes, &events);
        assert_eq!(actions.last(), Some(&Action::RunHere(Why::Choice(choice))));
        assert!(flow.failures().is_empty());
    }
}

#[test]
fn results_that_differ_are_done_again_here() {
    ends(
        &after_start(&[gathered(), Event::Placed, Event::Failed(Reason::ResultsDiffer)]),
        Action::RunHere(Why::Failure(Reason::ResultsDiffer)),
    );
}

#[test]
fn undecidable_unit_is_listed_by_the_compiler_then_preprocessed() {
    let (actions, flow) = life(
        Wish::Anywhere,
        CompilerNamed::Yes,
        &after_start(&[
            Event::Failed(Reason::ScanUndecidable),
            Event::Failed(Reason::CompilerListFailed),
            gathered(),
            Event::Placed,
            QUIET,
            Event::Checked,
        ]),
    );
    assert_eq!(
        actions[3..],
        [
            Action::Gather(Closure::Listed),
            Action::Preprocess,
            Action::Place,
            Action::Run,
            Action::Check,
            Action::Deliver,
        ]
    );
    assert_eq!(flow.mode(), Mode::B);
    assert_eq!(flow.failures(), [Reason::ScanUndecidable, Reason::CompilerListFailed]);
}

#[test]
fn mismatch_never_delivers_the_object_that_it_was_found_on() {
    let events = after_start(&[
        gathered(),
        Event::Placed,
        QUIET,
        Event::Failed(Reason::DependencyMismatch),
    ]);
    ends(&events, Action::Preprocess);
}

#[test]
fn diagnostics_on_preprocessed_text_are_thrown_away() {
    let events = after_start(&[
        Event::Failed(Reason::CompilerListFailed),
        gathered(),
        Event::Placed,
        Event::Answered(Answer {
            success: true,
            spoke: true,
            suspect: false,
        }),
    ]);
    ends(&events, Action::RunHere(Why::Failure(Reason::PreprocessedDiagnostics)));
}

#[test]
fn what_the_local_compiler_has_to_say_itself_is_left_to_it() {
    let gather = |gathered| Event::Gathered(gathered);
    let rows = [
        (
            vec![gather(Gathered {
                names_time: true,
                ..Gathered::default()
            })],
            Reason::TimeMacros,
        ),
        (
            vec![
                gather(Gathered {
                    foreign_locale: true,
                    ..Gathered::default()
                }),
                Event::Placed,
                COMPILE_ERROR,
            ],
            Reason::LocaleDiagnostics,
        ),
        (
            vec![
                gather(Gathered {
                    assembler_reads: true,
                    ..Gathered::default()
                }),
                Event::Placed,
                COMPILE_ERROR,
            ],
            Reason::AssemblerInclude,
        ),
        (
            vec![
                gathered(),
                Event::Placed,
                Event::Answered(Answer {
                    success: false,
                    spoke: true,
                    suspect: true,
                }),
            ],
            Reason::SuspectFailure,
        ),
    ];
    for (events, reason) in rows {
        ends(&after_start(&events), Action::RunHere(Why::Failure(reason)));
    }
}

#[test]
fn strict_mode_fails_where_the_farm_is_to_blame() {
    let (actions, _) = life(
        Wish::NoFallback,
        CompilerNamed::Yes,
        &[Event::Distributable, Event::Failed(Reason::NoCoordinator)],
    );
    assert_eq!(actions.last(), Some(&Action::Fail(Reason::NoCoordinator)));
}

#[test]
fn event_out_of_turn_ends_the_job_here() {
    ends(&[Event::Delivered], Action::RunHere(Why::Failure(Reason::Internal)));
}

#[test]
fn job_on_a_variant_is_made_anew_and_goes_on_like_any_other() {
    let events = after_start(&[
        gathered(),
        Event::PlacedOnVariant,
        Event::Adapted,
        QUIET,
        Event::Checked,
        Event::Delivered,
    ]);
    let (actions, flow) = life(Wish::Anywhere, CompilerNamed::Yes, &events);
    assert_eq!(actions[3..6], [Action::Place, Action::Adapt, Action::Run]);
    assert_eq!(actions.last(), Some(&Action::Finish));
    assert!(flow.failures().is_empty());
    assert_eq!(flow.variants(), Variants::Certified);
}

#[test]
fn whatever_goes_wrong_on_a_variant_is_done_again_on_the_jobs_own_toolchain() {
    let spoke = Event::Answered(Answer {
        success: true,
        spoke: true,
        suspect: false,
    });
    let placed = [gathered(), Event::PlacedOnVariant];
    let failed = Event::Failed;
    let rows: [(&[Event], Reason); 8] = [
        (&[failed(Reason::Internal)], Reason::VariantUnprepared),
        (&[Event::Adapted, spoke], Reason::VariantSpoke),
        (&[Event::Adapted, COMPILE_ERROR], Reason::VariantSpoke),
        (
            &[Event::Adapted, failed(Reason::VariantUncertified)],
            Reason::VariantUncertified,
        ),
        (&[Event::Adapted, failed(Reason::VariantUnlike)], Reason::VariantUnlike),
        (
            &[Event::Adapted, failed(Reason::WorkerUnsupported)],
            Reason::VariantUnfit,
        ),
        (
            &[Event::Adapted, QUIET, failed(Reason::DependencyMismatch)],
            Reason::VariantDiffers,
        ),
        (
            &[Event::Adapted, QUIET, failed(Reason::OutputMissing)],
            Reason::VariantDiffers,
        ),
    ];
    for (events, reason) in rows {
        let events: Vec<Event> = START.iter().chain(&placed).chain(events).copied().collect();
        for wish in [Wish::Anywhere, Wish::NoFallback] {
            let (actions, mut flow) = life(wish, CompilerNamed::Yes, &events);
            assert_eq!(actions.last(), Some(&Action::Place), "{reason}");
            assert_eq!(flow.failures(), [reason]);
            assert_eq!(flow.variants(), Variants::Never, "{reason}");
            // On its own toolchain its own words count again.
            assert_eq!(flow.handle(Event::Placed), Action::Run);
            assert_eq!(flow.handle(spoke), Action::Check);
        }
    }
    // What says nothing about the variant leaves it open.
    let events = after_start(&[
        gathered(),
        Event::PlacedOnVariant,
        Event::Adapted,
        Event::Failed(Reason::WorkerLost),
    ]);
    let (actions, flow) = life(Wish::Anywhere, CompilerNamed::Yes, &events);
    assert_eq!(
        (actions.last(), flow.variants()),
        (Some(&Action::Place), Variants::Certified)
    );
}
