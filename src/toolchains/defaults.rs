//! Options that a variant's compiler has to be told because its builder made another choice: `--with-arch`, `--with-float` …
//!
//! The boards' own gcc and a cross gcc for a smaller core can be the same compiler but for such choices. gcc adds what its
//! builder chose behind the words of a command that says nothing of the matter itself; so are these added, in the order of the
//! toolchain file, and the command is then the other compiler's to the last word. That it is so is not taken on trust: golden
//! objects and the profile of a job's flags are compared ([`super::certification`], [`super::profile`]). Pure.

use std::ffi::{OsStr, OsString};

/// Which options settle what others settle, too; an option with a value ends in `=`. After `OPTION_DEFAULT_SPECS` in gcc's
/// `config/arm/arm.h` and `config/aarch64/aarch64.h`.
const SETTLED_BY: [(&str, &[&str]); 8] = [
    ("-march=", &["-march=", "-mcpu="]),
    ("-mcpu=", &["-march=", "-mcpu="]),
    ("-mtune=", &["-mtune=", "-mcpu="]),
    ("-mfloat-abi=", &["-mfloat-abi=", "-msoft-float", "-mhard-float"]),
    ("-msoft-float", &["-mfloat-abi=", "-msoft-float", "-mhard-float"]),
    ("-mhard-float", &["-mfloat-abi=", "-msoft-float", "-mhard-float"]),
    ("-marm", &["-marm", "-mthumb"]),
    ("-mthumb", &["-marm", "-mthumb"]),
];

/// Returns those of `defaults` that a command with these words says nothing of, in order.
pub fn left_open(defaults: &[String], words: &[OsString]) -> Vec<OsString> {
    let open = defaults.iter().filter(|default| {
        let option = option_of(default);
        let row = SETTLED_BY.iter().find(|(name, _)| *name == option);
        let settled_by = row.map_or(std::slice::from_ref(&option), |(_, options)| *options);
        !words
            .iter()
            .any(|word| settled_by.iter().any(|option| is_option(word, option)))
    });
    open.map(OsString::from).collect()
}

/// `-march=` of `-march=armv5te`; the whole of an option without a value.
fn option_of(word: &str) -> &str {
    word.find('=').map_or(word, |at| &word[..=at])
}

fn is_option(word: &OsStr, option: &str) -> bool {
    match option.ends_with('=') {
        true => word.as_encoded_bytes().starts_with(option.as_bytes()),
        false => word == option,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_settles_is_left_to_it() {
        let defaults = ["-mfloat-abi=soft", "-mtls-dialect=gnu", "-marm", "-march=armv5te"].map(str::to_owned);
        let rows = [
            ("-O2", "-mfloat-abi=soft -mtls-dialect=gnu -marm -march=armv5te"),
            ("-mcpu=arm926ej-s", "-mfloat-abi=soft -mtls-dialect=gnu -marm"),
            ("-march=armv4t -mthumb", "-mfloat-abi=soft -mtls-dialect=gnu"),
            ("-msoft-float -marm", "-mtls-dialect=gnu -march=armv5te"),
            ("-mtls-dialect=gnu2 -mfloat-abi=softfp -march=armv5te -marm", ""),
            (
                "-mtune=arm9tdmi -marmor",
                "-mfloat-abi=soft -mtls-dialect=gnu -marm -march=armv5te",
            ),
        ];
        for (words, expected) in rows {
            let words: Vec<OsString> = words.split(' ').map(OsString::from).collect();
            let open = left_open(&defaults, &words);
            assert_eq!(open.join(OsStr::new(" ")), expected, "{words:?}");
        }
    }
}
