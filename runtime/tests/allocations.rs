//! Decoding takes no allocation a cell: counted, for every family of types, in packets of the load and in row images.
//!
//! Ten times the rows may take the few allocations more with which buffers double, and no other.
#![expect(
    unsafe_code,
    reason = "a global allocator is unsafe to implement, and this one passes everything on"
)]

#[path = "../benches/families/mod.rs"]
mod families;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use families::Family;
use pipewright::source::mysql::binlog::{ChangeBuilder, RowEvent, RowKind, TableMap};

/// Counts what the present thread asks for.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as the caller promises.
        unsafe { System.realloc(place, layout, size) }
    }
}

fn count() {
    // A thread that is ending counts no more.
    COUNT.try_with(|count| count.set(count.get() + 1)).ok();
}

/// How many allocations `work` takes.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = COUNT.get();
    work();
    COUNT.get() - before
}

const FEW: usize = 1_000;
const MANY: usize = 10_000;

/// Of a buffer while it grows tenfold.
const DOUBLINGS: u64 = 4;

/// Values or bytes, ends of the bytes, validity.
const BUFFERS: u64 = 3;

/// Families whose decoder takes a working place for each value, none of them of a fixed width.
const WITH_ROOM: [&str; 2] = ["json: small object", "compressed: varchar of 400"];

/// The allocations of so many rows, every seventh of them NULL.
fn of_packets(family: &Family, rows: usize) -> u64 {
    let (mut builder, _) = families::builder(family);
    let (packet, null) = (family.packet_row(), [0, 0b100]);
    let taken = allocations(|| {
        for row in 0..rows {
            let row = if row % 7 == 0 {
                &null
            } else {
                packet.as_slice()
            };
            builder
                .push_packet_row(row)
                .expect("a row of the test's own");
        }
    });
    assert_eq!(builder.row_count(), rows);
    taken
}

fn of_images(family: &Family, rows: usize) -> u64 {
    let (mut builder, formats) = families::builder(family);
    let (image, null) = (family.image_row(), [1]);
    let taken = allocations(|| {
        for row in 0..rows {
            let mut cursor = if row % 7 == 0 {
                &null
            } else {
                image.as_slice()
            };
            builder
                .push_image_row(&formats, &[1], &mut cursor)
                .expect("a row of the test's own");
        }
    });
    assert_eq!(builder.row_count(), rows);
    taken
}

#[test]
fn no_cell_of_any_family_takes_an_allocation() {
    let mut more = Vec::new();
    for family in families::all() {
        if WITH_ROOM.contains(&family.name) {
            continue;
        }
        for (form, of) in [
            ("packets", of_packets as fn(&Family, usize) -> u64),
            ("row images", of_images),
        ] {
            let (few, many) = (of(&family, FEW), of(&family, MANY));
            if many > few + DOUBLINGS * BUFFERS {
                more.push(format!("{} in {form}: {few} and {many}", family.name));
            }
        }
    }
    assert!(more.is_empty(), "{more:#?}");
}

/// As a table map has it: what of the metadata is how long, and which byte comes first.
fn metadata(family: &Family) -> Vec<u8> {
    let meta = family.format.meta;
    match family.format.wire_type {
        246 | 254 => meta.to_be_bytes().into(),
        15 | 16 | 141 => meta.to_le_bytes().into(),
        4 | 5 | 17..=19 | 242 | 245 | 252 | 255 => vec![meta.to_le_bytes()[0]],
        _ => vec![],
    }
}

fn map(families: &[Family]) -> TableMap {
    let count = u8::try_from(families.len()).expect("not so many");
    let mut body = vec![7, 0, 0, 0, 0, 0, 1, 0];
    body.extend(b"\x05bench\0\x01t\0");
    body.push(count);
    body.extend(families.iter().map(|family| family.format.wire_type));
    let metadata: Vec<u8> = families.iter().flat_map(metadata).collect();
    body.push(u8::try_from(metadata.len()).expect("not so much"));
    body.extend(metadata);
    body.extend(vec![0xff; families.len().div_ceil(8)]);
    TableMap::parse(&body).expect("a map of the test's own")
}

/// A row event's body: so many rows, each of as many images as there are bitmaps.
fn body(families: &[Family], bitmaps: usize, rows: usize) -> Vec<u8> {
    let width = families.len().div_ceil(8);
    let mut image = vec![0; width];
    families
        .iter()
        .for_each(|family| image.extend_from_slice(&family.image));
    let mut body = vec![7, 0, 0, 0, 0, 0, 1, 0];
    body.push(u8::try_from(families.len()).expect("not so many"));
    body.extend(vec![0xff; width * bitmaps]);
    body.extend(image.repeat(bitmaps * rows));
    body
}

/// Events of inserts and updates, of a table with every family: versions, kinds and keys take no more than cells do.
#[test]
fn no_row_of_an_event_takes_an_allocation() {
    let mut families = families::all();
    families.retain(|family| !WITH_ROOM.contains(&family.name));
    let table = Arc::new(families::table(&families));
    let map = Arc::new(map(&families));
    for (kind, bitmaps) in [
        (RowKind::Insert, 1),
        (RowKind::Update, 2),
        (RowKind::Delete, 1),
    ] {
        let of = |rows: usize| {
            let body = body(&families, bitmaps, rows);
            let event = RowEvent {
                table: Arc::clone(&map),
                kind,
                extra_data: false,
                partial: false,
                body: &body,
                offset: 1,
                undone: false,
            };
            let mut builder =
                ChangeBuilder::new(Arc::clone(&table), vec![0, 1], false).expect("a builder");
            let taken = allocations(|| {
                builder
                    .push_event(&event, 1)
                    .expect("an event of the test's own");
            });
            assert_eq!(builder.row_count(), rows);
            taken
        };
        let (few, many) = (of(FEW), of(MANY));
        // Kinds and versions are two buffers more.
        let buffers = BUFFERS * families.len() as u64 + 2;
        assert!(
            many <= few + DOUBLINGS * buffers,
            "{kind:?}: {few} allocations for {FEW} rows and {many} for {MANY}"
        );
    }
}
