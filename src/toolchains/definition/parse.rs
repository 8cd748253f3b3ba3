//! From the text of a toolchain file to a checked [`Definition`].
//!
//! Walks the parsed TOML itself instead of deriving a deserializer, because the errors have to name line, key and what
//! is allowed, for every value. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Body, Certify, Command, Definition, DefinitionError, Language, Variant};
use crate::ids::Name;
use crate::toolchains::host::Host;

const TOP_KEYS: &[&str] = &[
    "name",
    "description",
    "target",
    "flags",
    "environment",
    "compilers",
    "path",
    "include",
    "variant",
];
const VARIANT_KEYS: &[&str] = &["host", "certify", "compilers", "path", "include", "target", "defaults"];
const COMPILER_KEYS: &[&str] = &["c", "c++"];

type Value<'a> = &'a Spanned<DeValue<'a>>;

/// One table of the file, with what it takes to point at a place in it.
struct Section<'a> {
    text: &'a str,
    table: &'a DeTable<'a>,
    start: usize,
    keys: &'static [&'static str],
}

pub(super) fn definition(text: &str) -> Result<Definition, DefinitionError> {
    let parsed = DeTable::parse(text).map_err(|error| DefinitionError::Syntax {
        line: line_at(text, error.span().map_or(0, |span| span.start)),
        message: error.message().trim().replace('\n', ", "),
    })?;
    let top = Section {
        text,
        table: parsed.get_ref(),
        start: 0,
        keys: TOP_KEYS,
    };
    top.refuse_unknown_keys()?;
    let name = top.required("name", "the name users give it, such as \"arm926\"")?;
    let target = top.required(
        "target",
        "what the compiler's -dumpmachine prints, such as \"arm-linux-gnueabi\"",
    )?;
    let description = top.string("description")?.unwrap_or_default();
    let mut environment = top.strings("environment", variable_name)?;
    environment.sort();
    environment.dedup();
    let fallback = body(&top, &Body::default())?;
    let target = target_name(&top, target)?;
    let definition = Definition {
        name: Name::new(&name).map_err(|error| top.wrong("name", format!("`{name}`"), error.to_string()))?,
        description: single_line(&top, "description", description)?,
        flags: top.strings("flags", flag)?,
        environment,
        variants: variants(&top, &fallback, &target)?,
        target,
        fallback,
    };
    if definition.variants.is_empty() && definition.fallback.compilers.is_empty() {
        return Err(top.missing("compilers", COMPILERS_EXPECTED));
    }
    Ok(definition)
}

const COMPILERS_EXPECTED: &str =
    "a table with `c`, `c++` or both, such as compilers = { c = \"arm-linux-gnueabi-gcc\" }";
const COMMAND_EXPECTED: &str = "a command name or an absolute path, one program without arguments";

fn variants(top: &Section<'_>, fallback: &Body, target: &str) -> Result<Vec<Variant>, DefinitionError> {
    let Some(value) = top.table.get("variant") else {
        return Ok(Vec::new());
    };
    let expected = "one or more tables headed [[variant]]";
    let Some(array) = value.get_ref().as_array() else {
        return Err(top.wrong("variant", kind_of(value), expected));
    };
    let mut variants: Vec<Variant> = Vec::new();
    for item in array.iter() {
        let Some(table) = item.get_ref().as_table() else {
            return Err(top.wrong("variant", kind_of(item), expected));
        };
        let section = Section {
            text: top.text,
            table,
            start: item.span().start,
            keys: VARIANT_KEYS,
        };
        let variant = variant(&section, fallback, target)?;
        if variants.iter().any(|other| other.host == variant.host) {
            let found = format!("`{}` a second time", variant.host);
            return Err(section.wrong("host", found, "one variant for each kind of machine"));
        }
        variants.push(variant);
    }
    Ok(variants)
}

fn variant(section: &Section<'_>, fallback: &Body, target: &str) -> Result<Variant, DefinitionError> {
    section.refuse_unknown_keys()?;
    let host = section.required("host", &format!("one of {}", Host::all()))?;
    let host: Host = host.parse().map_err(|_| {
        let expected = format!("one of {}", Host::all());
        section.wrong("host", format!("`{host}`"), expected)
    })?;
    let certify = match section.string("certify")?.as_deref() {
        None | Some("identical") => Certify::Identical,
        Some("same-code") => Certify::SameCode,
        Some(other) => {
            let expected = "`identical` (the default) or `same-code`";
            return Err(section.wrong("certify", format!("`{other}`"), expected));
        }
    };
    let body = body(section, fallback)?;
    if body.compilers.is_empty() {
        return Err(section.missing("compilers", COMPILERS_EXPECTED));
    }
    Ok(Variant {
        host,
        certify,
        compilers: body.compilers,
        path: body.path,
        include: body.include,
        target: match section.string("target")? {
            Some(own) => target_name(section, own)?,
            None => target.to_owned(),
        },
        defaults: section.strings("defaults", default_option)?,
    })
}

/// Reads the keys that a variant may have of its own or take over, each whole, from the top of the file.
fn body(section: &Section<'_>, inherited: &Body) -> Result<Body, DefinitionError> {
    let paths = |key: &str, inherited: &Vec<PathBuf>| match section.table.get(key) {
        Some(_) => section.strings(key, absolute_path),
        None => Ok(inherited.clone()),
    };
    Ok(Body {
        compilers: compilers(section)?.unwrap_or_else(|| inherited.compilers.clone()),
        path: paths("path", &inherited.path)?,
        include: paths("include", &inherited.include)?,
    })
}

fn compilers(section: &Section<'_>) -> Result<Option<BTreeMap<Language, Command>>, DefinitionError> {
    let Some(value) = section.table.get("compilers") else {
        return Ok(None);
    };
    let Some(table) = value.get_ref().as_table() else {
        return Err(section.wrong("compilers", kind_of(value), COMPILERS_EXPECTED));
    };
    let section = Section {
        text: section.text,
        table,
        start: value.span().start,
        keys: COMPILER_KEYS,
    };
    section.refuse_unknown_keys()?;
    let mut compilers = BTreeMap::new();
    for language in Language::ALL {
        if let Some(text) = section.string(language.as_str())? {
            let command = command(&text)
                .ok_or_else(|| section.wrong(language.as_str(), format!("`{text}`"), COMMAND_EXPECTED))?;
            compilers.insert(language, command);
        }
    }
    if compilers.is_empty() {
        return Err(section.missing("c", "the C compiler driver (or `c++`, the C++ one)"));
    }
    Ok(Some(compilers))
}

impl<'a> Section<'a> {
    fn refuse_unknown_keys(&self) -> Result<(), DefinitionError> {
        for key in self.table.keys() {
            if !self.keys.contains(&key.get_ref().as_ref()) {
                let allowed: Vec<String> = self.keys.iter().map(|k| format!("`{k}`")).collect();
                return Err(DefinitionError::UnknownKey {
                    line: line_at(self.text, key.span().start),
                    key: in_one_line(key.get_ref()),
                    allowed: allowed.join(", "),
                });
            }
        }
        Ok(())
    }

    fn string(&self, key: &str) -> Result<Option<String>, DefinitionError> {
        let Some(value) = self.table.get(key) else {
            return Ok(None);
        };
        match value.get_ref().as_str() {
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(self.wrong(key, kind_of(value), "text in quotes")),
        }
    }

    fn required(&self, key: &str, expected: &str) -> Result<String, DefinitionError> {
        self.string(key)?.ok_or_else(|| self.missing(key, expected))
    }

    /// Reads a list of texts, each through `check`, which says what would be allowed.
    fn strings<T>(&self, key: &str, check: fn(&str) -> Result<T, &'static str>) -> Result<Vec<T>, DefinitionError> {
        let Some(value) = self.table.get(key) else {
            return Ok(Vec::new());
        };
        let Some(array) = value.get_ref().as_array() else {
            return Err(self.wrong(key, kind_of(value), "a list of texts, such as [\"…\"]"));
        };
        let mut list = Vec::new();
        for item in array.iter() {
            let Some(text) = item.get_ref().as_str() else {
                return Err(self.wrong_at(item, key, kind_of(item), "text in quotes"));
            };
            let checked = check(text).map_err(|expected| self.wrong_at(item, key, format!("`{text}`"), expected))?;
            list.push(checked);
        }
        Ok(list)
    }

    fn missing(&self, key: &str, expected: &str) -> DefinitionError {
        DefinitionError::Missing {
            line: line_at(self.text, self.start),
            key: key.to_owned(),
            expected: expected.to_owned(),
        }
    }

    fn wrong(&self, key: &str, found: String, expected: impl Into<String>) -> DefinitionError {
        let start = self.table.get(key).map_or(self.start, |v| v.span().start);
        DefinitionError::Value {
            line: line_at(self.text, start),
            key: key.to_owned(),
            found: in_one_line(&found),
            expected: in_one_line(&expected.into()),
        }
    }

    fn wrong_at(&self, item: Value<'_>, key: &str, found: String, expected: &str) -> DefinitionError {
        DefinitionError::Value {
            line: line_at(self.text, item.span().start),
            key: key.to_owned(),
            found: in_one_line(&found),
            expected: expected.to_owned(),
        }
    }
}

/// Returns a text of the file's as an error shows it: in one line, whatever was written.
fn in_one_line(text: &str) -> String {
    let shown = text.chars().map(|c| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    });
    shown.collect()
}

fn kind_of(value: Value<'_>) -> String {
    match value.get_ref().type_str() {
        "array" => "a list".to_owned(),
        "integer" => "an integer".to_owned(),
        kind => format!("a {kind}"),
    }
}

fn line_at(text: &str, offset: usize) -> usize {
    let before = &text.as_bytes()[..offset.min(text.len())];
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

fn command(text: &str) -> Option<Command> {
    if text.starts_with('/') {
        return absolute_path(text).ok().map(Command::At);
    }
    let plain = !text.is_empty()
        && !text.starts_with('-')
        && !text.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control());
    plain.then(|| Command::Named(text.to_owned()))
}

fn absolute_path(text: &str) -> Result<PathBuf, &'static str> {
    let clean = text.starts_with('/') && !text.contains('\0') && !text.split('/').any(|part| part == "..");
    if clean {
        Ok(PathBuf::from(text))
    } else {
        Err("an absolute path without `..`")
    }
}

fn flag(text: &str) -> Result<String, &'static str> {
    if text.starts_with('-') && text.len() > 1 && !text.contains(['\0', '\n']) {
        Ok(text.to_owned())
    } else {
        Err("one compiler option, starting with `-`, in one word such as \"--sysroot=/opt/sdk\"")
    }
}

fn default_option(text: &str) -> Result<String, &'static str> {
    match flag(text) {
        Ok(option) if option.starts_with("-m") => Ok(option),
        _ => Err("one `-m…` option in one word, such as \"-march=armv5te\""),
    }
}

fn variable_name(text: &str) -> Result<String, &'static str> {
    let mut chars = text.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if first && chars.all(|c| c.is_ascii_alphanumeric() || c == '_') {
        Ok(text.to_owned())
    } else {
        Err("the name of an environment variable, such as \"STAGING_DIR\"")
    }
}

fn target_name(section: &Section<'_>, text: String) -> Result<String, DefinitionError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if (1..=128).contains(&text.len()) && text.chars().all(allowed) && !text.starts_with('-') {
        Ok(text)
    } else {
        let expected = "what -dumpmachine prints: letters, digits, `-`, `_` and `.`";
        Err(section.wrong("target", format!("`{text}`"), expected))
    }
}

fn single_line(section: &Section<'_>, key: &str, text: String) -> Result<String, DefinitionError> {
    if text.chars().any(char::is_control) || text.len() > 500 {
        let found = "text of several lines or over 500 bytes".to_owned();
        return Err(section.wrong(key, found, "one line"));
    }
    Ok(text)
}
