//! Macro expansion within one directive, step by step as gcc's preprocessor does it.
//!
//! A stack of token lists is read from the top; a macro stays disabled while its list is on the stack, and a name met
//! while disabled is never expanded again. Everything that expansion may ask of the outside goes through [`Host`].
//! Invariant: work is bounded by [`STEPS_MAX`] per directive and depth by [`DEPTH_MAX`]; beyond, it is [`Trouble`].

use std::sync::Arc;

use super::dialect::Dialect;
use super::macros::{MacroTable, Meaning, Special};
use super::oracle::Query;
use super::reduced::{Form, Reduced};
use super::substitute::Argument;
use super::symbols::{Symbol, Symbols};
use super::token::{Kind, Lexer, NO_EXPAND, PASTE_LEFT, PREVIOUS_WHITE, Token};

mod special;

/// Most tokens that one directive may produce. gcc has no bound; the largest real ones (Boost) need some 100,000.
pub const STEPS_MAX: u32 = 4_000_000;

/// Bytes of a new spelling that count as one token, so that spellings which double at each step end in time.
pub(super) const SPELLING_BYTES_PER_STEP: usize = 16;

/// Deepest nesting of arguments within arguments, and of token lists.
pub const DEPTH_MAX: usize = 200;

/// Most token lists on the stack at once.
const CONTEXTS_MAX: usize = 20_000;

/// Why a directive cannot be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The compiler reports an error here.
    #[error("the compiler rejects it: {0}")]
    Rejected(&'static str),
    /// It depends on something that is not known before the compile runs.
    #[error("it depends on `{0:?}`")]
    Depends(Special),
    /// It is an assertion, such as `#machine(x)`.
    #[error("it is an assertion")]
    Assertion,
    /// It is larger than this scanner takes.
    #[error("its expansion is too large")]
    TooLarge,
    /// Looking for a header failed in a way that ends the scan; the host keeps the details.
    #[error("looking for a header failed")]
    Search,
}

/// What the outside answers.
pub trait Host {
    /// Says whether `#include` (or `#include_next`) would find `name`.
    fn has_include(&mut self, name: &[u8], form: Form, next: bool) -> Result<bool, Trouble>;
    /// Answers a question to the compiler.
    fn ask(&mut self, query: Query) -> Result<i64, Trouble>;
    /// Returns what `__FILE__` says, if it is known.
    fn file(&mut self) -> Option<Vec<u8>>;
    /// Returns what `__BASE_FILE__` says, if it is known.
    fn base_file(&mut self) -> Option<Vec<u8>>;
    /// Returns what `__LINE__` says, if it is known.
    fn line(&mut self) -> Option<u32>;
    /// Returns what `__INCLUDE_LEVEL__` says.
    fn level(&mut self) -> u32;
    /// Takes note of the work that one directive took, and refuses when all of them together took too much.
    fn spent(&mut self, steps: u32) -> Result<(), Trouble>;
}

/// What the expansion reads.
#[derive(Debug, Clone, Copy)]
pub struct World<'a> {
    /// The macros in force.
    pub macros: &'a MacroTable,
    /// The sources that the table refers to.
    pub sources: &'a [Arc<Reduced>],
    /// The spellings.
    pub symbols: &'a Symbols,
    /// The lexical rules.
    pub dialect: Dialect,
}

/// A list of tokens being read.
#[derive(Debug)]
struct Context {
    tokens: List,
    at: usize,
    /// The macro that is disabled while this list is read.
    owner: Option<Symbol>,
}

#[derive(Debug)]
enum List {
    /// The replacement list of an object-like macro.
    Body {
        source: usize,
        number: u32,
    },
    Owned(Vec<Token>),
}

/// Expands the tokens of one directive.
pub struct Expander<'a, H: Host> {
    pub(super) world: World<'a>,
    /// Answers what expansion cannot know.
    pub host: &'a mut H,
    base: &'a [Token],
    base_at: usize,
    contexts: Vec<Context>,
    /// Above 0, names are returned as they are.
    prevent: u32,
    /// Above 0, the operand is not evaluated, and nothing has to be asked.
    pub(super) unevaluated: u32,
    /// `#include` keeps white space between tokens, `#if` needs none.
    pub(super) keeps_padding: bool,
    /// Work so far, in tokens; at most about [`STEPS_MAX`].
    pub(super) steps: u32,
    pub(super) depth: usize,
}

impl<'a, H: Host> Expander<'a, H> {
    /// Starts on the tokens of a directive.
    pub fn new(world: World<'a>, host: &'a mut H, tokens: &'a [Token]) -> Self {
        Self {
            world,
            host,
            base: tokens,
            base_at: 0,
            contexts: Vec::new(),
            prevent: 0,
            unevaluated: 0,
            keeps_padding: false,
            steps: 0,
            depth: 0,
        }
    }

    /// Reads a token off the stack without expanding it; finished lists are dropped on the way.
    fn read(&mut self) -> Token {
        loop {
            let Some(top) = self.contexts.last_mut() else {
                let token = self.base.get(self.base_at).copied();
                self.base_at += usize::from(token.is_some());
                return token.unwrap_or(Token::END);
            };
            let token = match &top.tokens {
                List::Owned(tokens) => tokens.get(top.at).copied(),
                List::Body { source, number } => self.world.sources[*source]
                    .body(*number, self.world.symbols)
                    .tokens
                    .get(top.at)
                    .copied(),
            };
            match token {
                Some(token) => {
                    top.at += 1;
                    return token;
                }
                None => {
                    self.contexts.pop();
                }
            }
        }
    }

    /// Puts the token read last back.
    fn unread(&mut self) {
        match self.contexts.last_mut() {
            Some(top) => top.at -= 1,
            None => self.base_at -= 1,
        }
    }

    fn push(&mut self, tokens: List, owner: Option<Symbol>) -> Result<(), Trouble> {
        if self.contexts.len() >= CONTEXTS_MAX {
            return Err(Trouble::TooLarge);
        }
        self.contexts.push(Context { tokens, at: 0, owner });
        Ok(())
    }

    /// Says whether `name` is a macro whose list is being read. Deep stacks count as the work that they are.
    fn is_disabled(&mut self, name: Symbol) -> bool {
        self.steps += self.contexts.len() as u32 / 32;
        self.contexts.iter().any(|c| c.owner == Some(name))
    }

    /// Counts work beyond the tokens that are read: lists that are copied, spellings that grow.
    pub(super) fn spend(&mut self, steps: usize) -> Result<(), Trouble> {
        self.steps = self.steps.saturating_add(u32::try_from(steps).unwrap_or(u32::MAX));
        if self.steps > STEPS_MAX {
            return Err(Trouble::TooLarge);
        }
        Ok(())
    }

    /// Returns the next token, expanded; [`Token::END`] at the end of the directive or argument.
    pub fn next_token(&mut self) -> Result<Token, Trouble> {
        loop {
            self.spend(1)?;
            let mut token = self.read();
            if token.has(PASTE_LEFT) && !self.contexts.is_empty() {
                let pasted = self.paste_all(token)?;
                self.push(List::Owned(vec![pasted]), None)?;
                continue;
            }
            if token.kind != Kind::Name || token.has(NO_EXPAND) {
                return Ok(token);
            }
            let meaning = self.world.macros.get(token.symbol);
            if meaning == Meaning::Undefined {
                return Ok(token);
            }
            if self.is_disabled(token.symbol) {
                token.flags |= NO_EXPAND;
                return Ok(token);
            }
            if self.prevent > 0 {
                return Ok(token);
            }
            match meaning {
                Meaning::Undefined => return Ok(token),
                Meaning::Special(special) => return self.special(special),
                Meaning::Defined { source, number } => {
                    if !self.enter(token.symbol, source, number)? {
                        return Ok(token);
                    }
                }
            }
        }
    }

    /// Returns the next token that is no padding.
    pub fn next_solid(&mut self) -> Result<Token, Trouble> {
        loop {
            let token = self.next_token()?;
            if token.kind != Kind::Padding {
                return Ok(token);
            }
        }
    }

    /// Runs `read` with names left as they are.
    pub fn unexpanded<R>(&mut self, read: impl FnOnce(&mut Self) -> Result<R, Trouble>) -> Result<R, Trouble> {
        self.prevent += 1;
        let result = read(self);
        self.prevent -= 1;
        result
    }

    /// Starts the expansion of a macro; false when it is function-like and no argument list follows.
    fn enter(&mut self, name: Symbol, source: usize, number: u32) -> Result<bool, Trouble> {
        let sources = self.world.sources;
        let body = sources[source].body(number, self.world.symbols);
        if body.malformed {
            return Err(Trouble::Rejected("malformed macro definition"));
        }
        let Some(parameters) = body.parameters else {
            self.push(List::Body { source, number }, Some(name))?;
            return Ok(true);
        };
        let Some(mut arguments) = self.unexpanded(|this| this.arguments(parameters, body.variadic))? else {
            return Ok(false);
        };
        let tokens = if parameters == 0 {
            body.tokens.to_vec()
        } else {
            self.substitute(body, &mut arguments)?
        };
        self.push(List::Owned(tokens), Some(name))?;
        Ok(true)
    }

    /// Collects the arguments of a function-like macro; `None` when no parenthesis follows.
    fn arguments(&mut self, parameters: u16, variadic: bool) -> Result<Option<Vec<Argument>>, Trouble> {
        let mut padding: Option<Token> = None;
        let token = loop {
            let token = self.next_token()?;
            if token.kind != Kind::Padding {
                break token;
            }
            if padding.is_none_or(|earlier| token.outranks(earlier)) {
                padding = Some(token);
            }
        };
        if token.kind != Kind::Open {
            let at_base_end = token.kind == Kind::End && self.contexts.is_empty();
            if !at_base_end {
                self.unread();
                if let Some(padding) = padding {
                    self.push(List::Owned(vec![padding]), None)?;
                }
            }
            return Ok(None);
        }
        let parameters = usize::from(parameters);
        let mut arguments: Vec<Argument> = Vec::new();
        loop {
            let last = variadic && arguments.len() + 1 == parameters;
            let (tokens, end) = self.argument(last)?;
            arguments.push(Argument::new(tokens));
            match end.kind {
                Kind::Close => break,
                Kind::End => return Err(Trouble::Rejected("unterminated argument list")),
                _ if arguments.len() > parameters.max(1) => {
                    return Err(Trouble::Rejected("too many macro arguments"));
                }
                _ => {}
            }
        }
        self.fit(arguments, parameters, variadic).map(Some)
    }

    /// Reads one argument up to the comma or parenthesis behind it, which is returned too.
    fn argument(&mut self, takes_commas: bool) -> Result<(Vec<Token>, Token), Trouble> {
        let mut tokens: Vec<Token> = Vec::new();
        let mut open = 0;
        let end = loop {
            let token = self.next_token()?;
            match token.kind {
                Kind::Padding if tokens.is_empty() => continue,
                Kind::Open => open += 1,
                Kind::Close if open == 0 => break token,
                Kind::Close => open -= 1,
                Kind::Comma if open == 0 && !takes_commas => break token,
                Kind::End => break token,
                _ => {}
            }
            tokens.push(token);
        };
        while tokens.last().is_some_and(|t| t.kind == Kind::Padding) {
            tokens.pop();
        }
        Ok((tokens, end))
    }

    /// Checks the number of arguments, and marks a variable one that was left out altogether.
    fn fit(&self, mut arguments: Vec<Argument>, parameters: usize, variadic: bool) -> Result<Vec<Argument>, Trouble> {
        let given = arguments.len();
        let only_empty = given == 1 && arguments[0].raw.is_empty();
        if parameters == 0 {
            return if only_empty {
                Ok(Vec::new())
            } else {
                Err(Trouble::Rejected("too many macro arguments"))
            };
        }
        if given > parameters || given + usize::from(variadic) < parameters {
            return Err(Trouble::Rejected("wrong number of macro arguments"));
        }
        let left_out = given < parameters;
        if left_out {
            arguments.push(Argument::new(Vec::new()));
        }
        let strict = self.world.dialect.has(Dialect::STRICT);
        if variadic
            && (left_out || (only_empty && parameters == 1 && !strict))
            && let Some(last) = arguments.last_mut()
        {
            last.absent = true;
        }
        Ok(arguments)
    }

    /// Fully expands the tokens of an argument by themselves.
    pub(super) fn expand_argument(&mut self, raw: &[Token]) -> Result<Vec<Token>, Trouble> {
        if raw.is_empty() {
            return Ok(Vec::new());
        }
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Trouble::TooLarge);
        }
        let mut tokens = raw.to_vec();
        tokens.push(Token::END);
        self.push(List::Owned(tokens), None)?;
        let mut out = Vec::with_capacity(raw.len());
        loop {
            let token = self.next_token()?;
            if token.kind == Kind::End {
                break;
            }
            out.push(token);
        }
        self.contexts.pop();
        self.depth -= 1;
        Ok(out)
    }

    /// Pastes `left` with what follows it in its list.
    fn paste_all(&mut self, mut left: Token) -> Result<Token, Trouble> {
        loop {
            let right = self.read();
            self.spend(1)?;
            match self.paste(left, right)? {
                Some(pasted) => left = pasted,
                None => {
                    // Only an assembler source gets here: the tokens stay apart.
                    self.unread();
                    left.flags &= !PASTE_LEFT;
                    return Ok(left);
                }
            }
            if !right.has(PASTE_LEFT) {
                return Ok(left);
            }
        }
    }

    /// Pastes two tokens; `None` where an assembler source may keep them apart.
    pub(super) fn paste(&mut self, left: Token, right: Token) -> Result<Option<Token>, Trouble> {
        let mut text = self.world.symbols.spelling(left.symbol);
        if right.kind != Kind::Padding {
            self.world.symbols.append(right.symbol, &mut text);
        }
        self.spend(text.len() / SPELLING_BYTES_PER_STEP)?;
        let comment = text.starts_with(b"//") || text.starts_with(b"/*");
        let mut tokens = Lexer::new(&text, self.world.dialect, self.world.symbols);
        match (tokens.next(), tokens.next()) {
            (Some(mut token), None) if !comment => {
                token.flags |= left.flags & PREVIOUS_WHITE;
                Ok(Some(token))
            }
            _ if self.world.dialect.has(Dialect::ASSEMBLER) => Ok(None),
            _ => Err(Trouble::Rejected("pasting gives no token")),
        }
    }
}
