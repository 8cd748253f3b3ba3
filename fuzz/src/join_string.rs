//! Join strings, which a person pastes.
//!
//! Holds: what is taken prints as it was written, and a debug line does not tell it.

use rdcc::trust::join_string::JoinString;

/// Takes a string apart and puts it together.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(string) = text.parse::<JoinString>() else {
        return;
    };
    let printed = string.to_string();
    assert_eq!(printed, text.trim());
    assert_eq!(printed.parse(), Ok(string.clone()));
    assert!(!format!("{string:?}").contains(&printed[5..29]), "the secret is told");
}
