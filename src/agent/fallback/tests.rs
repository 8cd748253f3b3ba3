//! Every reason has one name and ends somewhere; the rules as a table.

use std::collections::BTreeSet;

use super::*;

#[test]
fn names_are_unique_and_fit_for_keys() {
    let names: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(names.len(), Reason::ALL.len());
    for name in names {
        assert!(
            name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
            "{name}"
        );
    }
}

/// Follows one reason, met again and again, to its end.
fn steps(reason: Reason, wish: Wish) -> Vec<Step> {
    let mut mode = Mode::A;
    let mut before = Vec::new();
    let mut steps = Vec::new();
    loop {
        let step = decide(reason, &before, mode, wish);
        steps.push(step);
        before.push(reason);
        match step {
            Step::Local(_) | Step::Fail(_) => return steps,
            Step::Preprocess => mode = Mode::B,
            Step::ResolveAgain | Step::PlaceAgain | Step::GatherAgain | Step::AskCompiler => {}
        }
        assert!(before.len() < ATTEMPTS_MAX, "{reason} does not end");
    }
}

#[test]
fn rules_as_a_table() {
    use Reason::*;
    use Step::*;
    let rows: [(Reason, &[Step]); 10] = [
        (ToolchainChanged, &[ResolveAgain, ResolveAgain, Local(ToolchainChanged)]),
        (WorkerLost, &[PlaceAgain, PlaceAgain, PlaceAgain, Local(WorkerLost)]),
        (
            FileChanged,
            &[GatherAgain, GatherAgain, GatherAgain, Local(FileChanged)],
        ),
        (ScanUndecidable, &[AskCompiler, Preprocess, Local(ScanUndecidable)]),
        (DependencyMismatch, &[Preprocess, Local(DependencyMismatch)]),
        (CompilerListFailed, &[Preprocess, Local(CompilerListFailed)]),
        (PreprocessedDiagnostics, &[Local(PreprocessedDiagnostics)]),
        (OutputNotWritable, &[Local(OutputNotWritable)]),
        (NoCoordinator, &[Local(NoCoordinator)]),
        (TimeMacros, &[Local(TimeMacros)]),
    ];
    for (reason, expected) in rows {
        assert_eq!(steps(reason, Wish::Anywhere), expected, "{reason}");
    }
}

#[test]
fn every_reason_ends_and_only_the_farm_is_an_error_in_strict_mode() {
    for reason in Reason::ALL {
        let last = steps(*reason, Wish::NoFallback).pop().expect("at least one step");
        let expected = match reason.rule().blame() {
            Blame::Farm => Step::Fail(*reason),
            Blame::Command => Step::Local(*reason),
        };
        assert_eq!(last, expected, "{reason}");
        assert_eq!(steps(*reason, Wish::Anywhere).pop(), Some(Step::Local(*reason)));
    }
}

#[test]
fn a_mixture_of_failures_ends_too() {
    let mixed = [
        Reason::WorkerLost,
        Reason::WorkerBusy,
        Reason::FileChanged,
        Reason::WorkerFault,
    ];
    let before: Vec<Reason> = mixed.iter().copied().cycle().take(ATTEMPTS_MAX - 1).collect();
    assert_eq!(
        decide(Reason::WorkerBusy, &before, Mode::A, Wish::Anywhere),
        Step::Local(Reason::WorkerBusy)
    );
}

#[test]
fn words_about_the_machine_are_told_from_words_about_the_program() {
    assert!(is_suspect(
        b"arm-linux-gnueabi-gcc: fatal error: Killed signal terminated program cc1\n"
    ));
    assert!(is_suspect(b"cc1: out of memory allocating 65536 bytes\n"));
    assert!(is_suspect(b"as: Fatal error: can't create a.o: Permission denied\n"));
    assert!(!is_suspect(b"a.c:1:2: error: #error boo\n"));
    assert!(misses_a_file(
        b"a.c:1:10: fatal error: nope.h: No such file or directory\n"
    ));
    assert!(!misses_a_file(b"a.c:1:1: error: expected ';'\n"));
}
