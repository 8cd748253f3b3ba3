//! Runs jobs in the real sandbox, as the executor asks for it.

use std::fs::File;
use std::io;
use std::path::Path;
use std::pin::pin;

use super::executor::{Pending, Ran, Sandbox};
use super::outputs::Left;
use super::sandbox::{Change, Command, Finished, Launcher, SandboxError, UpperDir};
use super::stop::Stop;

impl Sandbox for Launcher {
    fn run(&self, command: Command, stop: Stop) -> Pending<'_, Result<Ran, SandboxError>> {
        Box::pin(async move {
            let running = Launcher::run(self, command).await?;
            let switch = running.kill_switch();
            let mut finished = pin!(running.finished());
            let Finished {
                status,
                stdout,
                stderr,
                usage,
                outputs,
                killed_by,
            } = tokio::select! {
                finished = &mut finished => finished?,
                _ = stop.stopped() => {
                    switch.kill();
                    finished.await?
                }
            };
            Ok(Ran {
                status,
                stdout,
                stderr,
                usage,
                killed_by,
                left: Box::new(outputs),
            })
        })
    }
}

impl Left for UpperDir {
    fn changes(&self) -> &[Change] {
        UpperDir::changes(self)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        UpperDir::open(self, path).map_err(io::Error::other)
    }
}
