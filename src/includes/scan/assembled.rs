//! What the assembler reads by itself: `.incbin` and `.include`, which the preprocessor knows nothing of.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{ENTERED_MAX, Scan, Stop};
use crate::includes::closure::Reason;
use crate::includes::dialect::Dialect;
use crate::includes::reduced::{AssemblerInput, Op};
use crate::includes::source_tree::SourceTree;
use crate::includes::symbols::Symbol;

impl<T: SourceTree> Scan<'_, T> {
    /// Adds what the assembler reads, and what that has the assembler read in turn.
    pub(super) fn assemble(&mut self, name: Symbol, input: AssemblerInput, depth: usize) -> Result<(), Stop> {
        let request = self.outside.request;
        let given = request.options.bracket_dirs.iter().map(|dir| Path::new(&dir.path));
        let path = given.chain(request.assembler_dirs.iter().map(PathBuf::as_path));
        let Some(file) = self.outside.files.assembler_input(name, path)? else {
            let name = self.outside.symbols.spelling(name);
            let name = PathBuf::from(OsStr::from_bytes(&name));
            return Err(Reason::NotAssembled(name).into());
        };
        self.entered += 1;
        if self.entered > ENTERED_MAX {
            return Err(Reason::TooLarge.into());
        }
        self.assembled.push(Arc::clone(&file));
        if input == AssemblerInput::Binary {
            return Ok(());
        }
        if depth >= self.outside.depth_max {
            return Err(Reason::Depth.into());
        }
        let reduced = self.tree.reduced(&file, Dialect::ASSEMBLER, &self.outside.symbols)?;
        for op in &reduced.ops {
            match *op {
                Op::Assemble { path, input } => self.assemble(path, input, depth + 1)?,
                Op::Refuse(refusal) => return Err(Reason::from(refusal).into()),
                _ => {}
            }
        }
        Ok(())
    }
}
