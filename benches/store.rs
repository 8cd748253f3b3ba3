//! What the worker's blob store costs with 200,000 blobs in it: a start, the first questions, a blob in, a blob out.
//!
//! `cargo bench --bench store`. The blobs are empty files with believable names, since only names are looked at.

use std::error::Error;
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Instant;

use rdcc::digest::Digest;
use rdcc::store::disk::DiskStore;

const BLOBS: u64 = 200_000;
const PUTS: u64 = 2000;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    for shard in 0..=255_u8 {
        fs::create_dir(dir.path().join(format!("{shard:02x}")))?;
    }
    for number in 0..BLOBS {
        let digest = Digest::of(&number.to_le_bytes()).to_string();
        let name = PathBuf::from(&digest[..2]).join(format!("{}-5000", &digest[2..]));
        File::create(dir.path().join(name))?;
    }
    let started = Instant::now();
    let store = DiskStore::open(dir.path(), u64::MAX)?;
    println!("open: {:?}", started.elapsed());
    let asked: Vec<Digest> = (0..1000_u64).map(|number| Digest::of(&number.to_le_bytes())).collect();
    let started = Instant::now();
    let present = store
        .contains_many(&asked)
        .into_iter()
        .filter(|present| *present)
        .count();
    println!(
        "first question about 1000 blobs ({present} there), which lists all parts: {:?}",
        started.elapsed()
    );
    let started = Instant::now();
    store.contains_many(&asked);
    println!("the same again: {:?}", started.elapsed());

    let content: Vec<Vec<u8>> = (0..PUTS).map(|number| number.to_le_bytes().repeat(1000)).collect();
    let digests: Vec<Digest> = content.iter().map(|content| Digest::of(content)).collect();
    let started = Instant::now();
    for (digest, content) in digests.iter().zip(&content) {
        store.put(*digest, &mut &content[..])?;
    }
    println!("a blob of 8 kB in: {:?}", started.elapsed() / PUTS as u32);
    let store = DiskStore::open(dir.path(), u64::MAX)?;
    store.contains_many(&asked);
    for round in ["first", "second"] {
        let started = Instant::now();
        for digest in &digests {
            store.open_blob(*digest)?.ok_or("a blob is gone")?;
        }
        println!("{round} opening of a blob: {:?}", started.elapsed() / PUTS as u32);
    }

    let store = DiskStore::open(dir.path(), BLOBS * 8192)?;
    let started = Instant::now();
    store.put(Digest::of(b"one more"), &mut &b"one more"[..])?;
    println!("a blob in that makes room by evicting 2 %: {:?}", started.elapsed());
    Ok(())
}
