//! Requests and replies as bytes.
//!
//! Integers are little-endian, strings and lists have their length in front, an enum is a byte. Reports for people travel
//! as JSON inside, since they are printed as JSON too. The wrapper encodes one request and decodes one reply in its life,
//! thousands of times per build: nothing here is cleverer than a copy. Invariant: see `mod.rs`.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::frame::{HEADER_BYTES, Header};
use super::{CompileRequest, Compiler, Complaint, Connection, Driver, Finished, LocalRun, Reply, Request, Wish, Zero};
use crate::ids::Name;
use crate::job::{Status, Terminal};

/// Most words in an argv, or variables in an environment: far beyond what Linux takes.
const ITEMS_MAX: usize = 1 << 20;

/// Bytes that are no message of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// They do not begin as our messages do.
    #[error("not a message of rdcc")]
    Magic,
    /// Longer than any message may be.
    #[error("message of {0} bytes")]
    TooLong(usize),
    /// They end in the middle of something.
    #[error("message ends early")]
    Short,
    /// They go on after the end.
    #[error("{0} bytes after the end of the message")]
    Trailing(usize),
    /// A value that does not exist.
    #[error("`{0}` has an unknown value")]
    Value(&'static str),
    /// The peer speaks another format.
    #[error("message in format {0}")]
    Format(u16),
}

/// Encodes `request` with its header.
pub fn encode_request(request: &Request) -> Result<Vec<u8>, Malformed> {
    let mut out = Writer::default();
    match request {
        Request::Compile(compile) => {
            out.byte(0);
            encode_compile(&mut out, compile);
        }
        Request::Stats(zero) => out.bytes(&[1, u8::from(*zero == Zero::Reset)]),
        Request::Why(path) => {
            out.byte(2);
            out.string(path.as_os_str().as_bytes());
        }
        Request::Status => out.byte(3),
        Request::Retire => out.byte(4),
        Request::Trace => out.byte(5),
        Request::Audits(zero) => out.bytes(&[6, u8::from(*zero == Zero::Reset)]),
    }
    out.finish()
}

/// Decodes a request, its header already taken off.
pub fn decode_request(bytes: &[u8]) -> Result<Request, Malformed> {
    let mut from = Reader(bytes);
    let request = match from.byte()? {
        0 => Request::Compile(decode_compile(&mut from)?),
        1 => Request::Stats(decode_zero(&mut from)?),
        2 => Request::Why(PathBuf::from(from.os_string()?)),
        3 => Request::Status,
        4 => Request::Retire,
        5 => Request::Trace,
        6 => Request::Audits(decode_zero(&mut from)?),
        _ => return Err(Malformed::Value("request")),
    };
    from.finish(request)
}

fn decode_zero(from: &mut Reader<'_>) -> Result<Zero, Malformed> {
    match from.byte()? {
        0 => Ok(Zero::Keep),
        1 => Ok(Zero::Reset),
        _ => Err(Malformed::Value("zero")),
    }
}

/// Encodes `reply` with its header.
pub fn encode_reply(reply: &Reply) -> Result<Vec<u8>, Malformed> {
    let mut out = Writer::default();
    match reply {
        Reply::Finished(finished) => {
            let (kind, number) = match finished.status {
                Status::Exited(status) => (0, status),
                Status::Signaled(signal) => (1, signal),
            };
            out.bytes(&[0, kind, number]);
            out.string(&finished.stdout);
            out.string(&finished.stderr);
        }
        Reply::RunLocally(run) => {
            out.bytes(&[1, u8::from(run.connection == Connection::Inherit), run.niceness]);
            out.string(run.program.as_os_str().as_bytes());
            out.list(&run.flags, |out, flag| out.string(flag.as_bytes()));
        }
        Reply::Failed(complaint) => {
            out.byte(2);
            out.string(complaint.error.as_bytes());
            out.list(&complaint.causes, |out, cause| out.string(cause.as_bytes()));
            out.option(complaint.hint.as_ref(), |out, hint| out.string(hint.as_bytes()));
        }
        Reply::Superseded => out.byte(3),
        Reply::Stats(counters) => out.json(4, counters),
        Reply::Why(records) => out.json(5, records),
        Reply::Status(report) => out.json(6, report),
        Reply::Retiring => out.byte(7),
        Reply::Trace(trace) => out.json(8, trace),
        Reply::Audits(report) => out.json(9, report),
    }
    out.finish()
}

/// Decodes a reply, its header already taken off.
pub fn decode_reply(bytes: &[u8]) -> Result<Reply, Malformed> {
    let mut from = Reader(bytes);
    let reply = match from.byte()? {
        0 => {
            let (kind, number) = (from.byte()?, from.byte()?);
            Reply::Finished(Finished {
                status: match kind {
                    0 => Status::Exited(number),
                    1 => Status::Signaled(number),
                    _ => return Err(Malformed::Value("status")),
                },
                stdout: from.string()?.to_vec(),
                stderr: from.string()?.to_vec(),
            })
        }
        1 => Reply::RunLocally(LocalRun {
            connection: match from.byte()? {
                0 => Connection::Close,
                1 => Connection::Inherit,
                _ => return Err(Malformed::Value("connection")),
            },
            niceness: from.byte()?,
            program: PathBuf::from(from.os_string()?),
            flags: from.list(Reader::os_string)?,
        }),
        2 => Reply::Failed(Complaint {
            error: from.text("error")?,
            causes: from.list(|from| from.text("cause"))?,
            hint: from.option(|from| from.text("hint"))?,
        }),
        3 => Reply::Superseded,
        4 => Reply::Stats(from.json("stats")?),
        5 => Reply::Why(from.json("why")?),
        6 => Reply::Status(from.json("report")?),
        7 => Reply::Retiring,
        8 => Reply::Trace(from.json("trace")?),
        9 => Reply::Audits(from.json("audits")?),
        _ => return Err(Malformed::Value("reply")),
    };
    from.finish(reply)
}

fn encode_compile(out: &mut Writer, request: &CompileRequest) {
    out.option(request.toolchain.as_ref(), |out, name| {
        out.string(name.as_str().as_bytes())
    });
    match &request.compiler {
        Compiler::OfToolchain(Driver::C) => out.byte(0),
        Compiler::OfToolchain(Driver::Cxx) => out.byte(1),
        Compiler::At(path) => {
            out.byte(2);
            out.string(path.as_os_str().as_bytes());
        }
    }
    out.list(&request.argv, |out, word| out.string(word.as_bytes()));
    out.string(request.cwd.as_os_str().as_bytes());
    out.list(&request.env, |out, (name, value)| {
        out.string(name.as_bytes());
        out.string(value.as_bytes());
    });
    out.number(request.umask);
    out.option(request.terminal.as_ref(), |out, terminal| {
        out.number(u32::from(terminal.columns) << 16 | u32::from(terminal.rows));
    });
    out.byte(match request.wish {
        Wish::Anywhere => 0,
        Wish::NoFallback => 1,
        Wish::Here => 2,
    });
    out.option(request.worker.as_ref(), |out, name| {
        out.string(name.as_str().as_bytes())
    });
}

fn decode_compile(from: &mut Reader<'_>) -> Result<CompileRequest, Malformed> {
    Ok(CompileRequest {
        toolchain: from.option(|from| from.name("toolchain"))?,
        compiler: match from.byte()? {
            0 => Compiler::OfToolchain(Driver::C),
            1 => Compiler::OfToolchain(Driver::Cxx),
            2 => Compiler::At(PathBuf::from(from.os_string()?)),
            _ => return Err(Malformed::Value("compiler")),
        },
        argv: from.list(Reader::os_string)?,
        cwd: PathBuf::from(from.os_string()?),
        env: from.list(|from| Ok((from.os_string()?, from.os_string()?)))?,
        umask: from.number()?,
        terminal: from.option(|from| {
            let size = from.number()?;
            Ok(Terminal {
                columns: (size >> 16) as u16,
                rows: (size & 0xffff) as u16,
            })
        })?,
        wish: match from.byte()? {
            0 => Wish::Anywhere,
            1 => Wish::NoFallback,
            2 => Wish::Here,
            _ => return Err(Malformed::Value("wish")),
        },
        worker: from.option(|from| from.name("worker"))?,
    })
}

/// A message being written; room for its header is kept free in front.
struct Writer(Vec<u8>);

impl Default for Writer {
    fn default() -> Self {
        // A usual compile request has 2 to 8 KiB.
        let mut bytes = Vec::with_capacity(16 << 10);
        bytes.resize(HEADER_BYTES, 0);
        Self(bytes)
    }
}

impl Writer {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn number(&mut self, number: u32) {
        self.bytes(&number.to_le_bytes());
    }

    fn length(&mut self, length: usize) {
        // Whatever does not fit is also beyond the bound that `finish` checks.
        self.number(u32::try_from(length).unwrap_or(u32::MAX));
    }

    fn string(&mut self, string: &[u8]) {
        self.length(string.len());
        self.bytes(string);
    }

    fn list<T>(&mut self, items: &[T], mut item: impl FnMut(&mut Self, &T)) {
        self.length(items.len());
        for one in items {
            item(self, one);
        }
    }

    fn option<T>(&mut self, value: Option<&T>, item: impl FnOnce(&mut Self, &T)) {
        self.byte(u8::from(value.is_some()));
        if let Some(value) = value {
            item(self, value);
        }
    }

    fn json(&mut self, kind: u8, value: &impl Serialize) {
        self.byte(kind);
        let text = serde_json::to_vec(value).expect("reports are plain data with text keys");
        self.string(&text);
    }

    fn finish(mut self) -> Result<Vec<u8>, Malformed> {
        let header = Header::ours(self.0.len() - HEADER_BYTES)?;
        self.0[..HEADER_BYTES].copy_from_slice(&header.encode());
        Ok(self.0)
    }
}

/// What is left of a message being read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<u32, Malformed> {
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.number()? as usize;
        self.take(length)
    }

    fn os_string(&mut self) -> Result<OsString, Malformed> {
        let bytes = self.string()?;
        // The kernel would cut it there.
        if bytes.contains(&0) {
            return Err(Malformed::Value("string with a NUL"));
        }
        Ok(OsString::from_vec(bytes.to_vec()))
    }

    fn text(&mut self, what: &'static str) -> Result<String, Malformed> {
        String::from_utf8(self.string()?.to_vec()).map_err(|_| Malformed::Value(what))
    }

    fn name(&mut self, what: &'static str) -> Result<Name, Malformed> {
        Name::new(&self.text(what)?).map_err(|_| Malformed::Value(what))
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T, Malformed>) -> Result<Vec<T>, Malformed> {
        let count = self.number()? as usize;
        // Every item has at least its own length, so the message bounds the count.
        if count > ITEMS_MAX || count > self.0.len() / 4 {
            return Err(Malformed::Short);
        }
        (0..count).map(|_| item(self)).collect()
    }

    fn option<T>(&mut self, item: impl FnOnce(&mut Self) -> Result<T, Malformed>) -> Result<Option<T>, Malformed> {
        match self.byte()? {
            0 => Ok(None),
            1 => item(self).map(Some),
            _ => Err(Malformed::Value("option")),
        }
    }

    fn json<T: DeserializeOwned>(&mut self, what: &'static str) -> Result<T, Malformed> {
        serde_json::from_slice(self.string()?).map_err(|_| Malformed::Value(what))
    }

    fn finish<T>(self, message: T) -> Result<T, Malformed> {
        match self.0.len() {
            0 => Ok(message),
            more => Err(Malformed::Trailing(more)),
        }
    }
}

#[cfg(test)]
mod tests;
