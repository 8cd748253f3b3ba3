//! What goes into a book comes out of it, also after it was packed, copied and cut down.

use super::*;
use crate::includes::reduced::Facts;

/// A book of so many closures that share their files.
fn book(closures: u32) -> Book {
    let mut book = Book::default();
    for number in 0..closures {
        let record = record(&mut book, number);
        book.keep(Digest::of(&number.to_le_bytes()), &record);
    }
    book
}

fn record(book: &mut Book, number: u32) -> Record {
    let directory = book.directory(Path::new("/w"));
    let own = book.directory(Path::new(&format!("/w/{number}")));
    let file = |book: &mut Book, directory, name: &str| {
        book.file_row(FileRow {
            directory,
            name: name.as_bytes().into(),
            digest: Digest::of(name.as_bytes()),
        })
    };
    let source = file(book, own, "a.c");
    let headers: Vec<u32> = (0..20).map(|n| file(book, directory, &format!("{n}.h"))).collect();
    let files: Vec<u32> = [&[source], headers.as_slice()].concat();
    let listed = files.iter().map(|file| {
        book.listed_row(ListedRow {
            file: *file,
            spelling: file.to_string().as_bytes().into(),
            system: file % 2 == 0,
        })
    });
    let listed = listed.collect();
    let absent = (0..20).map(|n| {
        book.name(NameRow {
            directory: own,
            name: format!("{n}.h").as_bytes().into(),
        })
    });
    Record {
        listed,
        absent: absent.collect(),
        consulted: vec![headers[3]],
        assembled: vec![headers[4]],
        links: vec![book.link(&Arc::new(Link {
            path: "/w/l".into(),
            target: "x".into(),
        }))],
        directories: vec![directory, own],
        absent_directories: vec![own],
        passed: Vec::new(),
        times: vec![(headers[0], -5), (headers[2], 1 << 60)],
        facts: Facts {
            time: number.is_multiple_of(2),
            counter: true,
            line_directive: false,
            pragma_maker: true,
            pragma_words: false,
        },
    }
}

fn spelled(book: &mut Book, number: u32) -> Option<String> {
    let record = book.recall(&Digest::of(&number.to_le_bytes()))?;
    let listed = record.listed.iter().map(|at| {
        let row = &book.listed[*at as usize];
        let file = &book.files[row.file as usize];
        format!("{:?} {:?} {:?}", row, file, book.directories[file.directory as usize])
    });
    let absent = record.absent.iter().map(|at| {
        let row = &book.names[*at as usize];
        format!("{:?} {:?}", row.name, book.directories[row.directory as usize])
    });
    let spelled: Vec<String> = listed.chain(absent).collect();
    // Positions are a matter of each book.
    let names = spelled.join("\n").replace(|c: char| c.is_ascii_digit(), "");
    Some(format!(
        "{names} {:?} {:?}",
        record.facts,
        record.times.iter().map(|(_, time)| time).collect::<Vec<_>>()
    ))
}

#[test]
fn packed_book_says_the_same() {
    let mut first = book(30);
    let mut second = Book::unpack(&first.pack()).expect("what was packed");
    assert_eq!(second.pack(), first.pack());
    assert_eq!(second.bytes(), first.bytes());
    for number in 0..31 {
        assert_eq!(spelled(&mut second, number), spelled(&mut first, number));
        assert_eq!(spelled(&mut first, number).is_some(), number < 30);
    }
}

#[test]
fn least_recently_used_closures_are_forgotten() {
    let mut book = book(100);
    let before = book.bytes();
    let told = spelled(&mut book, 3);
    book.shrink(before / 2);
    assert!(
        book.bytes() < before * 6 / 10 && book.records.len() > 20,
        "{} of {before}",
        book.bytes()
    );
    assert_eq!(spelled(&mut book, 3), told);
    assert!(spelled(&mut book, 99).is_some() && spelled(&mut book, 4).is_none());
}

#[test]
fn damaged_book_is_refused_or_harmless() {
    let whole = book(3).pack();
    for at in 0..whole.len() {
        assert!(Book::unpack(&whole[..at]).is_none(), "{at} bytes");
        for bit in [1, 0x80] {
            let mut damaged = whole.clone();
            damaged[at] ^= bit;
            // Positions stay within their tables, so nothing below can panic.
            if let Some(mut book) = Book::unpack(&damaged) {
                (0..3).for_each(|number| drop(spelled(&mut book, number)));
            }
        }
    }
}
