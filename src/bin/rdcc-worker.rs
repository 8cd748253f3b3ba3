//! The worker's command line. Until the parts land: the sandbox's launcher only.

use std::process::ExitCode;

use rdcc::worker::sandbox;

fn main() -> ExitCode {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|argument| argument == sandbox::LAUNCHER_ARGUMENT)
    {
        return sandbox::launcher_main();
    }
    ExitCode::FAILURE
}
