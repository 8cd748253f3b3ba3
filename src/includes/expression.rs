//! Evaluates `#if` expressions and computed header names over expanded tokens.
//!
//! 64-bit arithmetic with gcc's rules on signedness; what stands behind a decided `&&`, `||` or `?:` is parsed but asks
//! nothing. Invariant: an expression that the compiler rejects is [`Trouble`], never a value.

use super::dialect::Dialect;
use super::expand::{DEPTH_MAX, Expander, Host, Trouble, World};
use super::literal::{self, Characters, Value};
use super::macros::Meaning;
use super::reduced::Form;
use super::symbols::known;
use super::token::{Kind, NOT_SMALL, Token};

/// Evaluates a condition.
pub fn evaluate<H: Host>(
    world: World<'_>,
    host: &mut H,
    tokens: &[Token],
    characters: Characters,
) -> Result<bool, Trouble> {
    if let Some(value) = simple(world, tokens) {
        return Ok(value);
    }
    let mut evaluator = Evaluator {
        input: Expander::new(world, host, tokens),
        characters,
        peeked: None,
    };
    let value = evaluator.comma()?;
    let end = evaluator.take()?;
    let steps = evaluator.input.steps;
    evaluator.input.host.spent(steps)?;
    match end.kind {
        Kind::End => Ok(value.is_true()),
        _ => Err(Trouble::Rejected("token behind the expression")),
    }
}

/// Decides the commonest condition, a single name, without setting up anything.
fn simple(world: World<'_>, tokens: &[Token]) -> Option<bool> {
    let [token] = tokens else { return None };
    if token.kind == Kind::Number && token.small != NOT_SMALL {
        return Some(token.small != 0);
    }
    if token.kind != Kind::Name || matches!(token.symbol, known::DEFINED | known::TRUE | known::FALSE) {
        return None;
    }
    match world.macros.get(token.symbol) {
        Meaning::Undefined => Some(false),
        Meaning::Special(_) => None,
        Meaning::Defined { source, number } => {
            let body = world.sources[source].body(number, world.symbols);
            (!body.malformed).then_some(())?;
            body.small_value().map(|value| value != 0)
        }
    }
}

/// Expands the tokens behind `#include` to a header name.
pub fn header_name<H: Host>(world: World<'_>, host: &mut H, tokens: &[Token]) -> Result<(Vec<u8>, Form), Trouble> {
    let mut expander = Expander::new(world, host, tokens);
    expander.keeps_padding = true;
    let first = expander.next_solid()?;
    let (name, form) = expander.header_name(first)?;
    let steps = expander.steps;
    expander.host.spent(steps)?;
    if name.is_empty() {
        return Err(Trouble::Rejected("empty header name"));
    }
    Ok((name, form))
}

struct Evaluator<'a, H: Host> {
    input: Expander<'a, H>,
    characters: Characters,
    peeked: Option<Token>,
}

/// Binding strength of the binary operators, as in C; the higher binds tighter.
fn strength(kind: Kind) -> Option<u8> {
    Some(match kind {
        Kind::Star | Kind::Slash | Kind::Percent => 10,
        Kind::Plus | Kind::Minus => 9,
        Kind::ShiftLeft | Kind::ShiftRight => 8,
        Kind::Less | Kind::Greater | Kind::LessEqual | Kind::GreaterEqual => 7,
        Kind::Equal | Kind::NotEqual => 6,
        Kind::And => 5,
        Kind::Xor => 4,
        Kind::Or => 3,
        Kind::AndAnd => 2,
        Kind::OrOr => 1,
        _ => return None,
    })
}

impl<H: Host> Evaluator<'_, H> {
    fn peek(&mut self) -> Result<Token, Trouble> {
        if let Some(token) = self.peeked {
            return Ok(token);
        }
        let token = self.input.next_solid()?;
        self.peeked = Some(token);
        Ok(token)
    }

    fn take(&mut self) -> Result<Token, Trouble> {
        let token = self.peek()?;
        self.peeked = None;
        Ok(token)
    }

    /// Guards the recursion, which follows the nesting of the expression.
    fn nested<R>(&mut self, parse: impl FnOnce(&mut Self) -> Result<R, Trouble>) -> Result<R, Trouble> {
        self.input.depth += 1;
        if self.input.depth > DEPTH_MAX {
            return Err(Trouble::TooLarge);
        }
        let result = parse(self);
        self.input.depth -= 1;
        result
    }

    /// Parses what is evaluated only when `evaluated` holds.
    fn conditional<R>(
        &mut self,
        evaluated: bool,
        parse: impl FnOnce(&mut Self) -> Result<R, Trouble>,
    ) -> Result<R, Trouble> {
        let skipped = u32::from(!evaluated);
        self.input.unevaluated += skipped;
        let result = parse(self);
        self.input.unevaluated -= skipped;
        result
    }

    fn comma(&mut self) -> Result<Value, Trouble> {
        let mut value = self.ternary()?;
        while self.peek()?.kind == Kind::Comma {
            self.take()?;
            value = self.ternary()?;
        }
        Ok(value)
    }

    fn ternary(&mut self) -> Result<Value, Trouble> {
        let condition = self.binary(1)?;
        if self.peek()?.kind != Kind::Question {
            return Ok(condition);
        }
        self.take()?;
        let holds = condition.is_true();
        let first = self.conditional(holds, |this| this.nested(Self::comma))?;
        if self.take()?.kind != Kind::Colon {
            return Err(Trouble::Rejected("`?` without `:`"));
        }
        let second = self.conditional(!holds, |this| this.nested(Self::ternary))?;
        Ok(Value {
            bits: if holds { first.bits } else { second.bits },
            unsigned: first.unsigned || second.unsigned,
        })
    }

    fn binary(&mut self, weakest: u8) -> Result<Value, Trouble> {
        let mut left = self.unary()?;
        loop {
            let operator = self.peek()?.kind;
            let Some(strength) = strength(operator).filter(|s| *s >= weakest) else {
                return Ok(left);
            };
            self.take()?;
            let evaluated = match operator {
                Kind::AndAnd => left.is_true(),
                Kind::OrOr => !left.is_true(),
                _ => true,
            };
            let right = self.conditional(evaluated, |this| this.nested(|this| this.binary(strength + 1)))?;
            left = self.apply(operator, left, right)?;
        }
    }

    fn unary(&mut self) -> Result<Value, Trouble> {
        let token = self.take()?;
        match token.kind {
            Kind::Not => {
                let value = self.nested(Self::unary)?;
                Ok(truth(!value.is_true()))
            }
            Kind::Minus => {
                let value = self.nested(Self::unary)?;
                Ok(Value {
                    bits: value.bits.wrapping_neg(),
                    ..value
                })
            }
            Kind::Plus => self.nested(Self::unary),
            Kind::Complement => {
                let value = self.nested(Self::unary)?;
                Ok(Value {
                    bits: !value.bits,
                    ..value
                })
            }
            Kind::Open => {
                let value = self.nested(Self::comma)?;
                match self.take()?.kind {
                    Kind::Close => Ok(value),
                    _ => Err(Trouble::Rejected("missing `)`")),
                }
            }
            _ => self.primary(token),
        }
    }

    fn primary(&mut self, token: Token) -> Result<Value, Trouble> {
        let symbols = self.input.world.symbols;
        match token.kind {
            Kind::Number if token.small != NOT_SMALL => Ok(Value::signed(i64::from(token.small))),
            Kind::Number => {
                let dialect = self.input.world.dialect;
                symbols
                    .with(token.symbol, |spelling| literal::number(spelling, dialect))
                    .ok_or(Trouble::Rejected("number that is no integer"))
            }
            Kind::Character => symbols
                .with(token.symbol, |spelling| literal::character(spelling, self.characters))
                .ok_or(Trouble::Rejected("malformed character constant")),
            Kind::Name if token.symbol == known::DEFINED => self.defined(),
            Kind::Name => {
                let cxx = self.input.world.dialect.has(Dialect::CXX);
                Ok(truth(cxx && token.symbol == known::TRUE))
            }
            Kind::Hash => Err(Trouble::Assertion),
            Kind::End => Err(Trouble::Rejected("missing operand")),
            _ => Err(Trouble::Rejected("token that has no place in an expression")),
        }
    }

    /// `defined X` or `defined(X)`, the operator taken.
    fn defined(&mut self) -> Result<Value, Trouble> {
        let name = self.input.unexpanded(|input| {
            let mut name = input.next_solid()?;
            let parenthesis = name.kind == Kind::Open;
            if parenthesis {
                name = input.next_solid()?;
            }
            if name.kind != Kind::Name {
                return Err(Trouble::Rejected("`defined` without name"));
            }
            if parenthesis && input.next_solid()?.kind != Kind::Close {
                return Err(Trouble::Rejected("`defined` without `)`"));
            }
            Ok(name)
        })?;
        Ok(truth(self.input.world.macros.is_defined(name.symbol)))
    }

    fn apply(&self, operator: Kind, left: Value, right: Value) -> Result<Value, Trouble> {
        let unsigned = left.unsigned || right.unsigned;
        let less = || {
            if unsigned {
                left.bits < right.bits
            } else {
                (left.bits as i64) < right.bits as i64
            }
        };
        let bits = match operator {
            Kind::OrOr => return Ok(truth(left.is_true() || right.is_true())),
            Kind::AndAnd => return Ok(truth(left.is_true() && right.is_true())),
            Kind::Equal => return Ok(truth(left.bits == right.bits)),
            Kind::NotEqual => return Ok(truth(left.bits != right.bits)),
            Kind::Less => return Ok(truth(less())),
            Kind::GreaterEqual => return Ok(truth(!less())),
            Kind::Greater => return Ok(truth(!less() && left.bits != right.bits)),
            Kind::LessEqual => return Ok(truth(less() || left.bits == right.bits)),
            Kind::ShiftLeft => return Ok(shift(left, right, Direction::Left)),
            Kind::ShiftRight => return Ok(shift(left, right, Direction::Right)),
            Kind::Slash | Kind::Percent => return self.divide(operator, left, right),
            Kind::Plus => left.bits.wrapping_add(right.bits),
            Kind::Minus => left.bits.wrapping_sub(right.bits),
            Kind::Star => left.bits.wrapping_mul(right.bits),
            Kind::And => left.bits & right.bits,
            Kind::Xor => left.bits ^ right.bits,
            _ => left.bits | right.bits,
        };
        Ok(Value { bits, unsigned })
    }

    fn divide(&self, operator: Kind, left: Value, right: Value) -> Result<Value, Trouble> {
        let unsigned = left.unsigned || right.unsigned;
        if right.bits == 0 {
            return if self.input.unevaluated > 0 {
                Ok(left)
            } else {
                Err(Trouble::Rejected("division by zero"))
            };
        }
        let (a, b) = (left.bits as i64, right.bits as i64);
        let bits = match (operator, unsigned) {
            (Kind::Slash, true) => left.bits / right.bits,
            (Kind::Slash, false) => a.wrapping_div(b) as u64,
            (_, true) => left.bits % right.bits,
            (_, false) => a.wrapping_rem(b) as u64,
        };
        Ok(Value { bits, unsigned })
    }
}

fn truth(value: bool) -> Value {
    Value::signed(i64::from(value))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Left,
    Right,
}

/// Shifts; a negative count shifts the other way, and 64 or more shift everything out.
fn shift(value: Value, count: Value, direction: Direction) -> Value {
    let (direction, count) = match (count.is_negative(), direction) {
        (false, direction) => (direction, count.bits),
        (true, Direction::Left) => (Direction::Right, count.bits.wrapping_neg()),
        (true, Direction::Right) => (Direction::Left, count.bits.wrapping_neg()),
    };
    let bits = match direction {
        Direction::Left if count > 63 => 0,
        Direction::Left => value.bits << count,
        Direction::Right if value.is_negative() => ((value.bits as i64) >> count.min(63)) as u64,
        Direction::Right if count > 63 => 0,
        Direction::Right => value.bits >> count,
    };
    Value { bits, ..value }
}

#[cfg(test)]
mod tests;
