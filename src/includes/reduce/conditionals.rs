//! Conditionals: their conditions, how their branches are linked, and which of them is an include guard.

use super::{Guard, Open, Reducer};
use crate::includes::reduced::Op;
use crate::includes::symbols::known;
use crate::includes::token::{Kind, Lexer, OPERATOR_NAME, Token};

impl Reducer<'_> {
    /// Makes an expression out of `clean`.
    pub(super) fn expression(&mut self) -> u32 {
        let start = self.tokens.len() as u32;
        Lexer::new(&self.clean, self.dialect, self.symbols).all(&mut self.tokens);
        self.expressions.push((start, self.tokens.len() as u32));
        self.expressions.len() as u32 - 1
    }

    pub(super) fn open_conditional(&mut self, name: &[u8], line: u32) {
        self.copy_rest();
        let next = u32::MAX;
        let op = match name {
            b"if" => {
                let expression = self.expression();
                self.condition(expression, next)
            }
            _ => match self.first_name() {
                Some((token, _)) if !token.has(OPERATOR_NAME) => {
                    let name_of_macro = token.symbol;
                    if name == b"ifdef" {
                        Op::IfDefined {
                            name: name_of_macro,
                            next,
                        }
                    } else {
                        Op::IfNotDefined {
                            name: name_of_macro,
                            next,
                        }
                    }
                }
                _ => self.never_valid(),
            },
        };
        self.guard = match (self.guard, op) {
            (Guard::Expected, Op::IfNotDefined { name, .. }) => Guard::Within(name),
            (Guard::Within(name), _) => Guard::Within(name),
            _ => Guard::Absent,
        };
        self.open.push(Open {
            branch: self.ops.len(),
            has_else: false,
            line,
        });
        self.push(op, line);
    }

    /// A condition whose evaluation fails: the directive lacks what it needs.
    fn never_valid(&mut self) -> Op {
        let end = self.tokens.len() as u32;
        self.expressions.push((end, end));
        Op::If {
            expression: self.expressions.len() as u32 - 1,
            next: u32::MAX,
        }
    }

    /// Turns `defined(X)` and `!defined(X)` into their shorter forms.
    fn condition(&mut self, expression: u32, next: u32) -> Op {
        let (start, end) = self.expressions[expression as usize];
        let tokens = &self.tokens[start as usize..end as usize];
        let (negated, rest) = match tokens {
            [first, rest @ ..] if first.kind == Kind::Not => (true, rest),
            _ => (false, tokens),
        };
        let name = match rest {
            [defined, name] if is_defined_operator(*defined) => *name,
            [defined, open, name, close]
                if is_defined_operator(*defined) && open.kind == Kind::Open && close.kind == Kind::Close =>
            {
                *name
            }
            _ => return Op::If { expression, next },
        };
        if name.kind != Kind::Name {
            return Op::If { expression, next };
        }
        self.tokens.truncate(start as usize);
        self.expressions.pop();
        let name = name.symbol;
        if negated {
            Op::IfNotDefined { name, next }
        } else {
            Op::IfDefined { name, next }
        }
    }

    pub(super) fn continue_conditional(&mut self, name: &[u8], line: u32) {
        self.copy_rest();
        let index = self.ops.len();
        let Some(open) = self.open.last().copied() else {
            self.defect
                .get_or_insert((line, "branch of a conditional outside of one"));
            return;
        };
        if open.has_else && name != b"endif" {
            self.defect.get_or_insert((line, "branch behind `#else`"));
        }
        self.link(open.branch, index as u32);
        let next = u32::MAX;
        let outermost = self.open.len() == 1;
        let op = match name {
            b"endif" => {
                self.open.pop();
                self.guard = match self.guard {
                    Guard::Within(name) if outermost => Guard::Closed(name),
                    guard => guard,
                };
                self.push(Op::EndIf, line);
                return;
            }
            b"else" => Op::Else { next },
            b"elif" => {
                let expression = self.expression();
                match self.condition(expression, next) {
                    Op::IfDefined { name, .. } => Op::ElseIfDefined { name, next },
                    Op::IfNotDefined { name, .. } => Op::ElseIfNotDefined { name, next },
                    _ => Op::ElseIf { expression, next },
                }
            }
            _ => match self.first_name() {
                Some((token, _)) if !token.has(OPERATOR_NAME) => {
                    let name_of_macro = token.symbol;
                    if name == b"elifdef" {
                        Op::ElseIfDefined {
                            name: name_of_macro,
                            next,
                        }
                    } else {
                        Op::ElseIfNotDefined {
                            name: name_of_macro,
                            next,
                        }
                    }
                }
                _ => match self.never_valid() {
                    Op::If { expression, .. } => Op::ElseIf { expression, next },
                    other => other,
                },
            },
        };
        if outermost {
            self.guard = Guard::Absent;
        }
        if let Some(last) = self.open.last_mut() {
            last.branch = index;
            last.has_else |= name == b"else";
        }
        self.push(op, line);
    }

    fn link(&mut self, branch: usize, target: u32) {
        match &mut self.ops[branch] {
            Op::If { next, .. }
            | Op::IfDefined { next, .. }
            | Op::IfNotDefined { next, .. }
            | Op::ElseIf { next, .. }
            | Op::ElseIfDefined { next, .. }
            | Op::ElseIfNotDefined { next, .. }
            | Op::Else { next } => *next = target,
            _ => {}
        }
    }
}

fn is_defined_operator(token: Token) -> bool {
    token.kind == Kind::Name && token.symbol == known::DEFINED
}
