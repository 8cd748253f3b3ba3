//! What a toolchain puts in front of a command's own words.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use crate::compile;
use crate::exchange::CompileRequest;
use crate::toolchains::defaults::left_open;
use crate::toolchains::definition::Definition;

/// Returns the flags of the toolchain's file, and those of the compiler's `defaults` that the command leaves open.
///
/// A response file's words count as the command's own. Where nobody knows what they are the command runs here anyhow.
pub(super) fn own_words(definition: &Definition, defaults: &[String], request: &CompileRequest) -> Vec<OsString> {
    let flags = definition.flags.iter().map(OsString::from);
    if defaults.is_empty() {
        return flags.collect();
    }
    let mut read = |file: &Path| fs::read(request.cwd.join(file));
    let expanded = compile::expand_response_files(&request.argv, &mut read);
    let words = expanded.as_ref().map_or(&request.argv, |expanded| &expanded.argv);
    flags.chain(left_open(defaults, words)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{Compiler, Driver, Wish};

    #[test]
    fn what_a_response_file_settles_is_left_to_it() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("flags"), "-O2 '-mcpu=arm926ej-s' @more\n").expect("written");
        fs::write(dir.path().join("more"), "-mthumb").expect("written");
        let text = "name = \"x\"\ntarget = \"arm-linux-gnueabi\"\ncompilers.c = \"x-gcc\"\nflags = [\"-g\"]\n";
        let definition = Definition::parse(text).expect("valid");
        let defaults = ["-marm", "-march=armv5te", "-mfloat-abi=soft"].map(str::to_owned);
        let own_words = |argv: &[&str]| {
            let request = CompileRequest {
                toolchain: None,
                compiler: Compiler::OfToolchain(Driver::C),
                argv: argv.iter().map(OsString::from).collect(),
                cwd: dir.path().to_owned(),
                env: Vec::new(),
                umask: 0o22,
                terminal: None,
                wish: Wish::Anywhere,
                worker: None,
            };
            super::own_words(&definition, &defaults, &request)
        };
        assert_eq!(own_words(&["gcc", "@flags", "-c", "a.c"]), ["-g", "-mfloat-abi=soft"]);
        let all = ["-g", "-marm", "-march=armv5te", "-mfloat-abi=soft"];
        assert_eq!(own_words(&["gcc", "@absent", "-c", "a.c"]), all);
        assert_eq!(own_words(&["gcc", "-c", "a.c"]), all);
    }
}
