//! Puts arguments into a function-like macro's replacement list: `#`, `##`, `__VA_OPT__`, and GNU's swallowed comma.
//!
//! The order of steps is gcc's: arguments are expanded unless they are stringified or pasted, and the paste mark of a
//! token is dropped where the other side turns out empty.

use super::expand::{Expander, Host, SPELLING_BYTES_PER_STEP, Trouble};
use super::macros::Body;
use super::symbols::{Symbols, known};
use super::token::{Kind, NO_SOURCE, PASTE_LEFT, PREVIOUS_WHITE, STRINGIFY, Token};

/// One argument of an invocation.
#[derive(Debug, Clone, Default)]
pub struct Argument {
    /// The tokens as written, without padding at either end.
    pub raw: Vec<Token>,
    /// The variable argument was left out altogether.
    pub absent: bool,
    expanded: Option<Vec<Token>>,
}

impl Argument {
    /// Makes an argument of tokens as written.
    pub fn new(raw: Vec<Token>) -> Self {
        Self {
            raw,
            absent: false,
            expanded: None,
        }
    }
}

impl Token {
    /// Padding in place of `source`.
    fn padding(source: Token) -> Self {
        let mut padding = Self::new(Kind::Padding, known::EMPTY);
        padding.flags = source.flags & PREVIOUS_WHITE;
        padding
    }

    /// Padding that only keeps its neighbours apart.
    fn separator() -> Self {
        let mut padding = Self::new(Kind::Padding, known::EMPTY);
        padding.flags = NO_SOURCE;
        padding
    }

    /// Says which of two paddings in a row decides the white space: whether `self` replaces `earlier`.
    pub(super) fn outranks(self, earlier: Self) -> bool {
        earlier.has(NO_SOURCE) || (!earlier.has(PREVIOUS_WHITE) && self.has(NO_SOURCE))
    }

    fn set_paste(&mut self, from: Self) {
        self.flags = (self.flags & !PASTE_LEFT) | (from.flags & PASTE_LEFT);
    }
}

/// Where the walk stands relative to `__VA_OPT__`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Optional {
    Outside,
    /// The name has been seen, its parenthesis not yet.
    Named,
    /// Within, with this many parentheses open; kept or dropped.
    Within {
        open: u32,
        kept: bool,
    },
}

/// The list under construction.
struct Output {
    tokens: Vec<Token>,
    state: Optional,
    /// Number of tokens in front of the current `__VA_OPT__`.
    start: usize,
    /// The current `__VA_OPT__` is stringified.
    stringify: bool,
}

impl<H: Host> Expander<'_, H> {
    /// Returns the replacement list of `body` with its parameters replaced.
    pub(super) fn substitute(&mut self, body: &Body, arguments: &mut [Argument]) -> Result<Vec<Token>, Trouble> {
        let list = &*body.tokens;
        for (at, token) in list.iter().enumerate() {
            if token.kind == Kind::Parameter && takes_expanded(list, at) {
                self.expand_once(&mut arguments[usize::from(token.small)])?;
            }
        }
        let mut out = Output {
            tokens: Vec::with_capacity(list.len() + 8),
            state: Optional::Outside,
            start: 0,
            stringify: false,
        };
        for (at, &token) in list.iter().enumerate() {
            if body.variadic && self.optional(list, at, arguments, &mut out)? {
                continue;
            }
            if token.kind == Kind::Parameter {
                let before = out.tokens.len();
                self.replace(body, at, arguments, &mut out)?;
                self.spend(out.tokens.len().saturating_sub(before))?;
            } else {
                out.tokens.push(token);
            }
        }
        if out.state != Optional::Outside {
            return Err(Trouble::Rejected("unterminated `__VA_OPT__`"));
        }
        Ok(out.tokens)
    }

    fn expand_once(&mut self, argument: &mut Argument) -> Result<(), Trouble> {
        if argument.expanded.is_none() {
            argument.expanded = Some(self.expand_argument(&argument.raw)?);
        }
        Ok(())
    }

    /// Replaces the parameter at position `at` of the list.
    fn replace(&mut self, body: &Body, at: usize, arguments: &[Argument], out: &mut Output) -> Result<(), Trouble> {
        let list = &*body.tokens;
        let token = list[at];
        let argument = &arguments[usize::from(token.small)];
        let pasted_to_left = at > 0 && list[at - 1].has(PASTE_LEFT);
        let at_optional_start =
            out.state != Optional::Outside && out.tokens.len() == out.start && !out.tokens.is_empty();
        let stringified;
        let mut tokens: &[Token] = if token.has(STRINGIFY) {
            stringified = [self.stringified(&argument.raw)?];
            &stringified
        } else if token.has(PASTE_LEFT) || pasted_to_left {
            &argument.raw
        } else {
            argument.expanded.as_deref().unwrap_or_default()
        };
        let plain = !token.has(STRINGIFY) && !token.has(PASTE_LEFT);
        if plain && pasted_to_left {
            if let Some(last) = out.tokens.last_mut() {
                let swallows = last.kind == Kind::Comma && body.variadic && Some(token.small + 1) == body.parameters;
                if swallows && argument.absent {
                    out.tokens.pop();
                } else if swallows || tokens.is_empty() {
                    last.set_paste(token);
                }
            }
        } else if plain && at_optional_start {
            let padding = tokens.iter().take_while(|t| t.kind == Kind::Padding);
            tokens = &tokens[padding.count()..];
        }
        if self.keeps_padding && at > 0 && !pasted_to_left && !at_optional_start {
            out.tokens.push(Token::padding(token));
        }
        out.tokens.extend_from_slice(tokens);
        if !tokens.is_empty()
            && token.has(PASTE_LEFT)
            && let Some(last) = out.tokens.last_mut()
        {
            last.flags |= PASTE_LEFT;
        }
        Ok(())
    }

    /// Makes a string literal of tokens, and counts its length as work.
    fn stringified(&mut self, tokens: &[Token]) -> Result<Token, Trouble> {
        let symbols = self.world.symbols;
        let bytes: usize = tokens.iter().map(|token| symbols.with(token.symbol, <[u8]>::len)).sum();
        self.spend(tokens.len() + bytes / SPELLING_BYTES_PER_STEP)?;
        Ok(stringify(tokens, symbols))
    }

    /// Handles the token at position `at` if it belongs to a `__VA_OPT__` or is dropped within one.
    fn optional(
        &mut self,
        list: &[Token],
        at: usize,
        arguments: &mut [Argument],
        out: &mut Output,
    ) -> Result<bool, Trouble> {
        let token = list[at];
        if token.kind == Kind::Name && token.symbol == known::VA_OPT {
            if out.state != Optional::Outside {
                return Err(Trouble::Rejected("`__VA_OPT__` within itself"));
            }
            out.state = Optional::Named;
            out.stringify = token.has(STRINGIFY);
            if at > 0 && !list[at - 1].has(PASTE_LEFT) {
                out.tokens.push(Token::padding(token));
            }
            out.start = out.tokens.len();
            return Ok(true);
        }
        match out.state {
            Optional::Outside => Ok(false),
            Optional::Named => {
                if token.kind != Kind::Open {
                    return Err(Trouble::Rejected("`__VA_OPT__` without parenthesis"));
                }
                let kept = self.has_variable_tokens(arguments)?;
                out.state = Optional::Within { open: 1, kept };
                Ok(true)
            }
            Optional::Within { open, kept } => {
                let open = match token.kind {
                    Kind::Open => open + 1,
                    Kind::Close => open - 1,
                    _ => open,
                };
                if open == 0 {
                    out.state = Optional::Outside;
                    self.close_optional(token, out)?;
                    return Ok(true);
                }
                out.state = Optional::Within { open, kept };
                Ok(!kept)
            }
        }
    }

    fn has_variable_tokens(&mut self, arguments: &mut [Argument]) -> Result<bool, Trouble> {
        let Some(last) = arguments.last_mut() else {
            return Ok(false);
        };
        self.expand_once(last)?;
        let expanded = last.expanded.as_deref().unwrap_or_default();
        Ok(expanded.iter().any(|t| t.kind != Kind::Padding))
    }

    /// Ends a `__VA_OPT__` at its closing parenthesis `close`.
    fn close_optional(&mut self, close: Token, out: &mut Output) -> Result<(), Trouble> {
        if out.stringify {
            let inside = out.tokens.split_off(out.start);
            let mut joined: Vec<Token> = Vec::with_capacity(inside.len());
            for token in inside {
                match joined.last_mut() {
                    Some(left) if left.has(PASTE_LEFT) => {
                        let pasted = self.paste(*left, token)?;
                        let mut pasted = pasted.ok_or(Trouble::Rejected("pasting gives no token"))?;
                        pasted.set_paste(token);
                        *left = pasted;
                    }
                    _ => joined.push(token),
                }
            }
            let mut text = self.stringified(&joined)?;
            text.set_paste(close);
            out.tokens.push(text);
            return Ok(());
        }
        let empty = out.tokens.len() == out.start;
        if empty && let Some(last) = out.tokens.last_mut() {
            last.flags &= !PASTE_LEFT;
        }
        if !close.has(PASTE_LEFT) {
            out.tokens.push(Token::separator());
            return Ok(());
        }
        while out.tokens.len() > out.start && out.tokens.last().is_some_and(|t| t.has(NO_SOURCE)) {
            out.tokens.pop();
        }
        if let Some(last) = out.tokens.last_mut()
            && last.kind != Kind::Padding
        {
            last.set_paste(close);
        }
        Ok(())
    }
}

/// Says whether the parameter at `at` takes its argument expanded.
fn takes_expanded(list: &[Token], at: usize) -> bool {
    let token = list[at];
    let pasted_to_left = at > 0 && list[at - 1].has(PASTE_LEFT);
    !token.has(STRINGIFY) && !token.has(PASTE_LEFT) && !pasted_to_left
}

/// Makes a string literal of an argument's tokens.
pub(super) fn stringify(tokens: &[Token], symbols: &Symbols) -> Token {
    let mut text = vec![b'"'];
    let mut source: Option<Token> = None;
    let mut backslashes = 0;
    for &token in tokens {
        if token.kind == Kind::Padding {
            // `None` stands both for no padding yet and for one without source.
            let replaces = source.is_none_or(|earlier| token.outranks(earlier));
            if replaces {
                source = (!token.has(NO_SOURCE)).then_some(token);
            }
            continue;
        }
        let white = source.unwrap_or(token).has(PREVIOUS_WHITE);
        if white && text.len() > 1 {
            text.push(b' ');
        }
        source = None;
        let spelling = symbols.spelling(token.symbol);
        let escapes = matches!(token.kind, Kind::Text | Kind::OtherText | Kind::Character);
        for &byte in &spelling {
            if escapes && matches!(byte, b'"' | b'\\') {
                text.push(b'\\');
            }
            text.push(byte);
        }
        let backslash = token.kind == Kind::Stray && spelling == b"\\";
        backslashes = if backslash { backslashes + 1 } else { 0 };
    }
    if backslashes % 2 == 1 {
        text.pop();
    }
    text.push(b'"');
    Token::new(Kind::Text, symbols.intern(&text))
}
