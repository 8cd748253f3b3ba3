//! Table tests of `#if` expressions and computed names, with macros given as definitions.

use std::sync::Arc;

use super::*;
use crate::includes::dialect::{Language, Strictness};
use crate::includes::macros::{MacroRef, MacroTable, Special};
use crate::includes::oracle::Query;
use crate::includes::reduce::reduce;
use crate::includes::reduced::{Op, Reduced};
use crate::includes::symbols::Symbols;

struct Fixed;

impl Host for Fixed {
    fn has_include(&mut self, name: &[u8], form: Form, next: bool) -> Result<bool, Trouble> {
        Ok(name == b"there.h" && form == Form::Angle && !next)
    }

    fn ask(&mut self, query: Query) -> Result<i64, Trouble> {
        Ok(i64::from(query.operand == b"packed" || query.operand == b"gnu::packed"))
    }

    fn file(&mut self) -> Option<Vec<u8>> {
        Some(b"dir/a\"b.h".to_vec())
    }

    fn base_file(&mut self) -> Option<Vec<u8>> {
        None
    }

    fn line(&mut self) -> Option<u32> {
        Some(12)
    }

    fn spent(&mut self, _steps: u32) -> Result<(), Trouble> {
        Ok(())
    }

    fn level(&mut self) -> u32 {
        3
    }
}

/// Runs the definitions in `text` and hands the one `#if` or `#include` behind them to `run`.
fn with_last<R>(text: &str, dialect: Dialect, run: impl FnOnce(World<'_>, &Reduced, Op) -> R) -> R {
    let symbols = Symbols::new();
    let reduced = Arc::new(reduce(text.as_bytes(), dialect, &symbols));
    let mut macros = MacroTable::default();
    macros.reset(symbols.len());
    for special in Special::ALL {
        macros.define_special(*special);
    }
    let mut last = Op::EndIf;
    for op in &reduced.ops {
        match *op {
            Op::Define { first, end } => {
                for number in first..end {
                    macros.define(reduced.names[number as usize], MacroRef::new(0, number));
                }
            }
            Op::EndIf => {}
            op => last = op,
        }
    }
    let sources = [Arc::clone(&reduced)];
    let world = World {
        macros: &macros,
        sources: &sources,
        symbols: &symbols,
        dialect,
    };
    run(world, &reduced, last)
}

const TARGET: Characters = Characters {
    char_unsigned: false,
    wide_unsigned: false,
    wide_bits: 32,
};

fn gnu17() -> Dialect {
    Dialect::new(Language::C, 201_710, Strictness::Gnu)
}

fn condition(definitions: &str, expression: &str, dialect: Dialect) -> Result<bool, Trouble> {
    let text = format!("{definitions}\n#if {expression}\n#endif\n");
    with_last(&text, dialect, |world, reduced, op| match op {
        Op::If { expression, .. } => evaluate(world, &mut Fixed, reduced.expression(expression), TARGET),
        Op::IfDefined { name, .. } => Ok(world.macros.is_defined(name)),
        Op::IfNotDefined { name, .. } => Ok(!world.macros.is_defined(name)),
        other => panic!("unexpected {other:?}"),
    })
}

#[test]
fn conditions_that_hold() {
    for (definitions, expression) in [
        ("", "1"),
        ("", "!0 && ~0 == -1"),
        ("", "(2 || 1) != (2 | 1)"),
        ("", "-1 > 0u"),
        ("", "-1 < 0"),
        ("", "(0 ? 1 : 2u) - 3 > 0"),
        ("", "0 || (1, 2) == 2"),
        ("", "1 ? 2 : 3"),
        ("", "1 << 3 == 8 && -8 >> 1 == -4 && 1 << -1 == 0 && 4 >> -1 == 8"),
        ("", "7 / 2 == 3 && -7 / 2 == -3 && -7 % 2 == -1"),
        ("", "1 || 1/0"),
        ("", "'a' == 97 && '\\377' < 0"),
        ("", "0x7fffffffffffffff + 1 < 0"),
        ("", "__LINE__ == 12 && __INCLUDE_LEVEL__ == 3"),
        ("", "__has_include(<there.h>) && !__has_include(\"there.h\")"),
        ("#define H <there.h>", "__has_include(H)"),
        ("#define HAS(x) __has_include(x)", "HAS(<there.h>)"),
        ("", "__has_attribute(packed) && !__has_attribute(odd)"),
        ("", "__has_cpp_attribute(gnu::packed)"),
        ("", "defined(__has_include) && defined __FILE__"),
        ("#define A", "defined A && !defined(B)"),
        ("#define A 1\n#define B A", "B == 1"),
        ("#define A A + 1", "A == 1"),
        ("#define F(x) x + 1", "F(2) == 3 && F == 0"),
        ("#define F(x, y) x ## y", "F(1, 2) == 12"),
        ("#define F(x, y) x ## y\n#define AB 5\n#define A 7", "F(A, B) == 5"),
        ("#define D defined(X)\n#define X", "D"),
        ("#define V(...) __VA_ARGS__ + 0", "V() == 0 && V(1) == 1"),
        ("#define V(x, ...) x __VA_OPT__(+ 1)", "V(1) == 1 && V(1, 2) == 2"),
        (
            "#define C(a, ...) N(a, ## __VA_ARGS__, 2, 1)\n#define N(a, b, c, ...) c",
            "C(1) == 1",
        ),
        (
            "#define C(a, ...) N(a, ## __VA_ARGS__, 2, 1)\n#define N(a, b, c, ...) c",
            "C(1, 1) == 2",
        ),
        ("#define G(a...) N(0, ## a, 1, 0)\n#define N(a, b, c...) b", "G() == 1"),
        (
            "#define __ARG_PLACEHOLDER_1 0,\n#define __take(i, v, ...) v\n#define ___d(a) __take(a 1, 0)\n\
             #define __d(v) ___d(__ARG_PLACEHOLDER_##v)\n#define _d(x) __d(x)\n#define IS(x) _d(x)\n#define ON 1",
            "IS(ON) && !IS(OFF)",
        ),
        ("#define L (\n#define F(x) 1", "F L 1 == 0 || 1"),
    ] {
        if expression.starts_with("F L") {
            // `(` from a macro does not start an argument list: two operands in a row.
            assert!(condition(definitions, expression, gnu17()).is_err());
            continue;
        }
        let result = condition(definitions, expression, gnu17());
        assert_eq!(result, Ok(true), "{definitions} / {expression}");
    }
}

#[test]
fn conditions_that_gcc_rejects_have_no_value() {
    for expression in [
        "",
        "1 2",
        "(1",
        "1)",
        "1 +",
        "? 1",
        "1 ? 2",
        "1/0",
        "1.0",
        "\"a\"",
        "a = 1",
        "defined",
        "defined(1)",
        "08",
        "''",
        "__has_include",
        "__has_include(x",
        "#cpu(arm)",
        "__COUNTER__",
        "__DATE__",
    ] {
        assert!(condition("", expression, gnu17()).is_err(), "{expression}");
    }
    assert!(condition("#define F(x) x", "F(1", gnu17()).is_err());
    assert!(condition("#define F(x) x", "F(1, 2)", gnu17()).is_err());
}

#[test]
fn alternative_spellings_are_operators_in_cxx_only() {
    let cxx = Dialect::new(Language::Cxx, 201_703, Strictness::Gnu);
    assert_eq!(condition("", "true and not false", cxx), Ok(true));
    assert_eq!(condition("", "true", gnu17()), Ok(false));
    assert!(condition("", "1 and 1", gnu17()).is_err());
}

fn name(definitions: &str, operand: &str) -> Result<(String, Form), Trouble> {
    let text = format!("{definitions}\n#include {operand}\n");
    with_last(&text, gnu17(), |world, reduced, op| match op {
        Op::IncludeComputed { expression, .. } => header_name(world, &mut Fixed, reduced.expression(expression))
            .map(|(name, form)| (String::from_utf8_lossy(&name).into_owned(), form)),
        Op::Include { name, form, .. } => {
            let name = world.symbols.spelling(name);
            Ok((String::from_utf8_lossy(&name).into_owned(), form))
        }
        other => panic!("unexpected {other:?}"),
    })
}

#[test]
fn header_names_are_computed_as_in_gcc() {
    let check = |definitions: &str, operand: &str, expected: &str, form: Form| {
        let expected = Ok((expected.to_owned(), form));
        assert_eq!(name(definitions, operand), expected, "{definitions} / {operand}");
    };
    check("", "<a//b.h>", "a//b.h", Form::Angle);
    check("", "/* x */ \"a\\b.h\" junk", "a\\b.h", Form::Quote);
    check("#define H \"x.h\"", "H", "x.h", Form::Quote);
    check("#define H <dir/x.h>", "H", "dir/x.h", Form::Angle);
    check("#define D dir", "<D/x.h>", "D/x.h", Form::Angle);
    check("#define D dir\n#define H <D/x.h>", "H", "dir/x.h", Form::Angle);
    check(
        "#define S(x) #x\n#define X(x) S(x)\n#define D dir",
        "X(D/x.h)",
        "dir/x.h",
        Form::Quote,
    );
    check(
        "#define S(x) #x\n#define X(x) S(x)\n#define D dir",
        "X( D / x.h )",
        "dir / x.h",
        Form::Quote,
    );
    check(
        "#define S(x) #x\n#define X(x) S(x)\n#define P(a,b) a/b.h",
        "X(P(linux,sys))",
        "linux/sys.h",
        Form::Quote,
    );
    check("", "__FILE__", "dir/a\\\"b.h", Form::Quote);
    assert!(name("", "x.h").is_err());
    assert!(name("#define H L\"x.h\"", "H").is_err());
    assert!(name("#define H \"\"", "H").is_err());
}

#[test]
fn expansions_that_double_at_each_step_end_as_too_large() {
    let mut definitions = String::from(
        "#define D(x) x x x x\n#define P(a) a##a\n#define Q(a) P(a)\n#define T(x) #x\n#define S(x) T(x)\n",
    );
    let nested = |name: &str, innermost: &str, depth: usize| {
        format!("{}{innermost}{}", format!("{name}(").repeat(depth), ")".repeat(depth))
    };
    for (name, innermost) in [("D", "1 +"), ("Q", "a"), ("S", "\"\\\\\"")] {
        let text = nested(name, innermost, 60);
        assert_eq!(
            condition(&definitions, &text, gnu17()),
            Err(Trouble::TooLarge),
            "{text}"
        );
    }
    for number in 0..40_000 {
        definitions.push_str(&format!("#define M{number} M{} +\n", number + 1));
    }
    assert_eq!(condition(&definitions, "M0", gnu17()), Err(Trouble::TooLarge));
}
