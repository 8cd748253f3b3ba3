//! A board's compiler and a PC's: jobs of the one run on the other, with the same bits.
//!
//! The board is an agent in this process whose machine is said to be one, with a copy of the cross compiler under a prefix of
//! its own as its compiler: other paths, other headers of gcc's, another identity. The PC is a real worker with the installed
//! cross compiler.

use std::fs;
use std::path::Path;

use rdcc::agent::socket::Service;
use rdcc::exchange::{Driver, Variant};
use rdcc::toolchains::objects::{Agreement, compare};

use super::farm::assert_same_files;

mod world;

use world::{Board, PC, World, definition};

#[tokio::test(flavor = "multi_thread")]
async fn a_pc_compiles_for_a_board_what_the_board_would_have_made() {
    let Some(world) = World::new(Board::Same).await else {
        return;
    };
    for text in [
        "-O2 -c a.c -o out/a.o",
        "-g -O1 -MMD -c a.c",
        "-g3 -O0 -MD -MF out/a.d -MT x -c a.c -o out/a.o",
        "-Os -mcpu=arm926ej-s -fPIC -ffunction-sections -MD -MP -Wall -c a.c",
        "-mthumb -march=armv7-a -mfpu=vfpv3-d16 -mfloat-abi=softfp -O2 -c a.c",
        "-isystem sub -idirafter . -include sub/a.h -O2 -g -MD -c a.c",
        "-std=gnu99 -D_FORTIFY_SOURCE=2 -O2 -fstack-protector-strong -fstack-usage -c a.c",
        "-O2 -S a.c",
        "-c @flags a.c",
        "-fsanitize=undefined -O1 -c a.c",
        "-c s.S -o out/s.o",
        "-g -MD -c s.S",
        "-x c++ -O2 -c b.cc",
    ] {
        world.check(Driver::C, text).await;
    }
    for text in [
        "-O2 -c b.cc",
        "-g -std=c++17 -MMD -fno-exceptions -c b.cc -o out/b.o",
        "-O0 -g3 -MD -c b.cc",
    ] {
        world.check(Driver::Cxx, text).await;
    }
    let record = world.agent.why(world.farm.src().join("b.o")).await.expect("known");
    let variant = record[0].variant.clone().expect("told");
    let Variant { host, level, .. } = &variant;
    assert_eq!((host.as_str(), level.as_str()), (PC, "identical"));
    what_a_variant_cannot_do_exactly_stays_here(&world).await;
    other_golden_objects_end_it_at_once(&world).await;
    world.tasks.shut_down(std::time::Duration::from_secs(30)).await;
}

async fn what_a_variant_cannot_do_exactly_stays_here(world: &World) {
    let own_only = "own_toolchain_only";
    world.stays_here("-Wall -c warns.c", own_only, &["variant_spoke"]).await;
    world.stays_here("-c wrong.c", own_only, &["variant_spoke"]).await;
    for (text, why) in [
        ("-flto -c a.c", "own_only_lto"),
        ("-frecord-gcc-switches -c a.c", "own_only_recorded_command_line"),
        ("-save-temps -c a.c", "own_only_side_files"),
        ("-g -gsplit-dwarf -c a.c", "own_only_side_files"),
    ] {
        let counters = world.stays_here(text, own_only, &[]).await;
        assert_eq!(counters.own_only_by_reason.keys().collect::<Vec<_>>(), [why], "{text}");
    }
}

async fn other_golden_objects_end_it_at_once(world: &World) {
    world.check(Driver::C, "-O2 -c a.c").await;
    let text = definition(&world.prefix, Board::Same, "identical");
    world.push_spoilt(&text).await;
    world.stays_here("-O2 -c a.c", "toolchain_not_on_farm", &[]).await;
    world.push_pc(&text);
    world.check(Driver::C, "-O2 -c a.c").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compiler_that_was_built_for_another_core_is_told_what_it_is_to_be() {
    let Some(world) = World::new(Board::Softer).await else {
        return;
    };
    for text in [
        "-O2 -c a.c -o out/a.o",
        "-g -O1 -MMD -c a.c",
        "-g3 -O0 -c a.c -o out/a.o",
        "-Os -mcpu=arm926ej-s -fPIC -c a.c",
        "-g -mthumb -O2 -c a.c",
        "-g -marm -mabi=aapcs-linux -march=armv5te -mtune=arm9tdmi -msoft-float -Os -c a.c",
        "-mthumb -march=armv7-a -mfpu=vfpv3-d16 -mfloat-abi=softfp -O2 -c a.c",
        "-c @flags a.c",
        "-g -MD -c s.S",
    ] {
        world.check(Driver::C, text).await;
    }
    let told = definition(&world.prefix, Board::Softer, "identical");
    let untold: Vec<&str> = told.lines().filter(|line| !line.starts_with("defaults")).collect();
    world.push_pc(&untold.join("\n"));
    world.stays_here("-O2 -c a.c", "toolchain_not_on_farm", &[]).await;
    world.tasks.shut_down(std::time::Duration::from_secs(30)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_with_another_signature_are_taken_only_where_the_file_says_so() {
    let Some(world) = World::new(Board::Signs).await else {
        return;
    };
    world
        .stays_here("-O2 -g -c a.c -o a.o", "toolchain_not_on_farm", &[])
        .await;
    let allowing = definition(&world.prefix, Board::Signs, "same-code");
    // The board's own file has a say, too.
    world.push_pc(&allowing);
    let refused = ["variant_unprepared"];
    world
        .stays_here("-O2 -g -c a.c -o a.o", "own_toolchain_only", &refused)
        .await;
    fs::write(world.farm.path("board-toolchains").join("board.toml"), &allowing).expect("written");
    for text in ["-O2 -g -MMD -c a.c -o a.o", "-O0 -g3 -c a.c -o a.o"] {
        let (mut expected, mut found) = world.compiled(Driver::C, text).await;
        let name = Path::new("a.o");
        let objects = [&mut expected, &mut found].map(|files| files.remove(name).expect("an object"));
        assert_eq!(compare(&objects[0], &objects[1]), Agreement::SameCode, "{text}");
        assert_same_files(&found, &expected, text);
    }
    let record = world.agent.why(world.farm.src().join("a.o")).await.expect("known");
    assert_eq!(
        record[0].variant.as_ref().map(|variant| variant.level.as_str()),
        Some("same-code")
    );
    // Assembly has the signature in it as text.
    let counters = world.stays_here("-O2 -S a.c", "own_toolchain_only", &[]).await;
    let why: Vec<_> = counters.own_only_by_reason.keys().collect();
    assert_eq!(why, ["own_only_assembly"]);
    world.tasks.shut_down(std::time::Duration::from_secs(30)).await;
}
