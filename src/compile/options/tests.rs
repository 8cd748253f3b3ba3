//! The table is sorted, every row can be reached, and what it says of an option is what gcc does.

use super::table::ROWS;
use super::*;

#[test]
fn rows_are_sorted_and_unique() {
    for pair in ROWS.windows(2) {
        assert!(
            pair[0].name.as_bytes() < pair[1].name.as_bytes(),
            "`{}` stands before `{}`",
            pair[0].name,
            pair[1].name
        );
    }
}

#[test]
fn every_row_is_found_by_its_own_name() {
    for row in ROWS {
        let found = find(OsStr::new(row.name)).expect("a row");
        assert_eq!(found.row.name, row.name);
        assert_eq!(found.takes_next(), takes_next(row.shape), "{}", row.name);
    }
}

#[test]
fn every_row_that_takes_joined_values_is_found_with_one() {
    for row in ROWS {
        let word = format!("{}@@", row.name);
        let found = find(OsStr::new(&word));
        if matches!(row.shape, Shape::Joined | Shape::Either) {
            let found = found.expect("a row");
            assert_eq!(found.row.name, row.name);
            assert_eq!(found.joined, Some(OsStr::new("@@")));
        } else {
            // A shorter option may take it, as gcc takes `-undefx` for `-u ndefx`.
            assert!(found.is_none_or(|found| found.row.name.len() < row.name.len()));
        }
    }
}

fn takes_next(shape: Shape) -> bool {
    matches!(shape, Shape::Separate | Shape::Either)
}

#[test]
fn longest_name_wins() {
    let name = |word: &str| find(OsStr::new(word)).map(|found| found.row.name);
    assert_eq!(name("-undef"), Some("-undef"));
    assert_eq!(name("-undefine_me"), Some("-u"));
    assert_eq!(name("-MMD"), Some("-MMD"));
    assert_eq!(name("-MFx.d"), Some("-MF"));
    assert_eq!(name("-include-pch"), Some("-include"));
    assert_eq!(name("-iwithprefixbeforex"), Some("-iwithprefixbefore"));
    assert_eq!(name("-fdump-tree-all"), Some("-fdump-"));
    assert_eq!(name("-fprofile-use=x"), Some("-fprofile-use="));
    assert_eq!(name("-fprofile-user"), Some("-f"));
    assert_eq!(name("-Wpedantic"), Some("-W"));
    assert_eq!(name("-Wp,-DX"), Some("-Wp,"));
    assert_eq!(name("-EL"), Some("-EL"));
    assert_eq!(name("-Efoo"), None);
    assert_eq!(name("-cc1"), None);
    assert_eq!(name("--"), None);
    assert_eq!(name("-"), None);
    assert_eq!(name("-é"), None);
}

#[test]
fn families_pass_keywords_and_stop_at_what_may_be_a_file() {
    let reason = |word: &str| {
        let found = find(OsStr::new(word)).expect("a row");
        local_reason(found.row.role, found.joined)
    };
    for word in [
        "-fno-strict-aliasing",
        "-falign-functions=16:8",
        "-fpatchable-function-entry=16,16",
        "-fsome-future-flag",
        "-fsome-future=keyword",
        "-march=armv8.2-a+fp16",
        "-mtune=cortex-a15.cortex-a7",
        "-mcpu=nativish",
        "-mfpu=neon-vfpv4",
        "-fexec-charset=utf-8",
        "-fsanitize-address-use-after-scope",
        "-fdebug-prefix-map=/a/b=.",
    ] {
        assert_eq!(reason(word), None, "{word}");
    }
    for (word, expected) in [
        ("-fsome-future=dir/file", LocalReason::UnknownOption),
        ("-fsome-future=list.txt", LocalReason::UnknownOption),
        ("-msome-future=/file", LocalReason::UnknownOption),
        ("-march=native", LocalReason::NativeCpu),
        ("-mcpu=native", LocalReason::NativeCpu),
        ("-mtune=native", LocalReason::NativeCpu),
        ("-mcpu=native+nofp", LocalReason::NativeCpu),
        ("-fexec-charset=latin1", LocalReason::Charset),
    ] {
        assert_eq!(reason(word), Some(expected), "{word}");
    }
}
