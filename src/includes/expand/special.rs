//! The macros that the preprocessor computes: `__LINE__`, `__has_include` and their like.

use super::{Expander, Host, Trouble};
use crate::includes::macros::Special;
use crate::includes::oracle::Query;
use crate::includes::reduced::Form;
use crate::includes::token::{Kind, PREVIOUS_WHITE, Token};

impl<H: Host> Expander<'_, H> {
    /// Computes a special macro.
    pub(super) fn special(&mut self, special: Special) -> Result<Token, Trouble> {
        match special {
            Special::Line => match self.host.line() {
                Some(line) => Ok(self.number(i64::from(line))),
                None => Err(Trouble::Depends(special)),
            },
            Special::IncludeLevel => {
                let level = self.host.level();
                Ok(self.number(i64::from(level)))
            }
            Special::File => {
                let file = self.host.file();
                self.file_text(special, file)
            }
            Special::BaseFile => {
                let file = self.host.base_file();
                self.file_text(special, file)
            }
            Special::HasInclude | Special::HasIncludeNext => {
                let found = self.has_include(special == Special::HasIncludeNext)?;
                Ok(self.number(i64::from(found)))
            }
            Special::HasAttribute
            | Special::HasCppAttribute
            | Special::HasCAttribute
            | Special::HasBuiltin
            | Special::HasFeature
            | Special::HasExtension => {
                let operand = self.operand()?;
                if self.unevaluated > 0 {
                    return Ok(self.number(0));
                }
                let value = self.host.ask(Query {
                    operator: special,
                    operand,
                })?;
                Ok(self.number(value))
            }
            Special::FileName
            | Special::Counter
            | Special::Date
            | Special::Time
            | Special::Timestamp
            | Special::Pragma
            | Special::HasEmbed => Err(Trouble::Depends(special)),
        }
    }

    fn number(&self, value: i64) -> Token {
        let spelling = self.world.symbols.intern(value.to_string().as_bytes());
        let mut token = Token::new(Kind::Number, spelling);
        if let Ok(small) = u16::try_from(value)
            && small < 10_000
        {
            token.small = small;
        }
        token
    }

    fn file_text(&self, special: Special, file: Option<Vec<u8>>) -> Result<Token, Trouble> {
        let file = file.ok_or(Trouble::Depends(special))?;
        let mut text = vec![b'"'];
        for byte in file {
            if matches!(byte, b'\\' | b'"') {
                text.push(b'\\');
            }
            text.push(byte);
        }
        text.push(b'"');
        Ok(Token::new(Kind::Text, self.world.symbols.intern(&text)))
    }

    /// Parses the operand of `__has_include` and looks for it, unless it stands where nothing is evaluated.
    fn has_include(&mut self, next: bool) -> Result<bool, Trouble> {
        if self.next_solid()?.kind != Kind::Open {
            return Err(Trouble::Rejected("`__has_include` without parenthesis"));
        }
        let header = self.next_solid()?;
        let (name, form) = self.header_name(header)?;
        let found = if self.unevaluated > 0 {
            false
        } else {
            self.host.has_include(&name, form, next)?
        };
        if self.next_solid()?.kind != Kind::Close {
            return Err(Trouble::Rejected("`__has_include` without parenthesis"));
        }
        Ok(found)
    }

    /// Takes the header name that starts with `first`: a literal, or tokens between angle brackets.
    pub(in crate::includes) fn header_name(&mut self, first: Token) -> Result<(Vec<u8>, Form), Trouble> {
        let symbols = self.world.symbols;
        match first.kind {
            Kind::Text => {
                let spelling = symbols.spelling(first.symbol);
                Ok((spelling[1..spelling.len() - 1].to_vec(), Form::Quote))
            }
            Kind::Header => {
                let spelling = symbols.spelling(first.symbol);
                Ok((spelling[1..spelling.len() - 1].to_vec(), Form::Angle))
            }
            Kind::Less => {
                let mut name = Vec::new();
                loop {
                    let token = self.next_solid()?;
                    match token.kind {
                        Kind::Greater => return Ok((name, Form::Angle)),
                        Kind::End => return Err(Trouble::Rejected("header name without `>`")),
                        _ => {}
                    }
                    if token.has(PREVIOUS_WHITE) {
                        name.push(b' ');
                    }
                    symbols.append(token.symbol, &mut name);
                }
            }
            _ => Err(Trouble::Rejected("no header name")),
        }
    }

    /// Reads the operand of `__has_attribute` and its like up to its closing parenthesis.
    fn operand(&mut self) -> Result<Vec<u8>, Trouble> {
        if self.next_solid()?.kind != Kind::Open {
            return Err(Trouble::Rejected("operator without parenthesis"));
        }
        let mut operand = Vec::new();
        loop {
            let token = self.next_solid()?;
            match token.kind {
                Kind::Close if !operand.is_empty() => return Ok(operand),
                Kind::Name | Kind::Scope | Kind::Colon => {
                    self.world.symbols.append(token.symbol, &mut operand);
                }
                _ => return Err(Trouble::Rejected("operand that is no name")),
            }
        }
    }
}
