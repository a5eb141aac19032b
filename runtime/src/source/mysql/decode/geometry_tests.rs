use super::*;

fn point(x: f64, y: f64) -> Vec<u8> {
    let mut wkb = vec![1, 1, 0, 0, 0];
    wkb.extend(x.to_le_bytes());
    wkb.extend(y.to_le_bytes());
    wkb
}

/// The head of a value with a count, low byte first.
fn head(kind: u8, count: u8) -> Vec<u8> {
    vec![1, kind, 0, 0, 0, count, 0, 0, 0]
}

fn stored(srid: u32, parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = srid.to_le_bytes().to_vec();
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

fn text(flavor: Flavor, form: GeometryForm, stored: &[u8]) -> Result<String, DecodeError> {
    let mut out = Vec::new();
    print(Geometry { form, flavor }, stored, &mut out)?;
    Ok(String::from_utf8(out).expect("ASCII"))
}

fn wkt(flavor: Flavor, parts: &[&[u8]]) -> String {
    text(flavor, GeometryForm::Wkt, &stored(0, parts)).expect("a geometry")
}

#[test]
fn multipoints_are_printed_as_their_server_prints_them() {
    let parts: [&[u8]; 3] = [&head(4, 2), &point(1.0, 2.0), &point(3.0, -4.5)];
    assert_eq!(wkt(Flavor::MySql, &parts), "MULTIPOINT((1 2),(3 -4.5))");
    assert_eq!(wkt(Flavor::MariaDb, &parts), "MULTIPOINT(1 2,3 -4.5)");
}

/// Texts as MySQL 9.7 and MariaDB 10.11 gave them for these bits.
#[test]
fn coordinates_are_printed_as_their_server_prints_them() {
    for (number, mysql, mariadb) in [
        (0.0, "0", "0"),
        (-0.0, "-0", "0"),
        (1e14, "100000000000000", "100000000000000"),
        (1e15, "1e15", "1e15"),
        (1e-15, "0.000000000000001", "0.000000000000001"),
        (f64::MAX, "1.7976931348623157e308", "1.7976931348623157e308"),
        (5e-324, "5e-324", "5e-324"),
        (
            4.127934189930038e-9,
            "4.127934189930038e-9",
            "0.000000004127934189930038",
        ),
        (
            -7.87274695588816e-9,
            "-7.87274695588816e-9",
            "-0.00000000787274695588816",
        ),
        (
            6.811317721867835e-8,
            "0.00000006811317721867835",
            "0.00000006811317721867835",
        ),
        (
            -0.0000005238186160810321,
            "-0.0000005238186160810321",
            "-0.0000005238186160810321",
        ),
        (
            2_460_728_689_948_876.5,
            "2460728689948876.5",
            "2460728689948876.5",
        ),
        (
            -1_409_125_547_639_553.0,
            "-1.409125547639553e15",
            "-1.409125547639553e15",
        ),
    ] {
        let parts: [&[u8]; 1] = [&point(number, 1.0)];
        assert_eq!(wkt(Flavor::MySql, &parts), format!("POINT({mysql} 1)"));
        assert_eq!(wkt(Flavor::MariaDb, &parts), format!("POINT({mariadb} 1)"));
    }
}

#[test]
fn what_no_server_prints_says_what_is_stored() {
    let parts: [&[u8]; 1] = [&point(f64::NAN, f64::NEG_INFINITY)];
    assert_eq!(wkt(Flavor::MySql, &parts), "POINT(nan -inf)");
    assert_eq!(wkt(Flavor::MariaDb, &[&head(4, 0)]), "MULTIPOINT EMPTY");
}

#[test]
fn collections_nest_and_may_be_empty() {
    let inner = [head(7, 1), point(3.0, 4.0)].concat();
    let parts: [&[u8]; 4] = [&head(7, 3), &point(1.0, 2.0), &inner, &head(7, 0)];
    assert_eq!(
        wkt(Flavor::MySql, &parts),
        "GEOMETRYCOLLECTION(POINT(1 2),GEOMETRYCOLLECTION(POINT(3 4)),GEOMETRYCOLLECTION EMPTY)"
    );
    let deep = vec![head(7, 1); 100_000].concat();
    assert_eq!(
        text(Flavor::MySql, GeometryForm::Wkt, &stored(0, &[&deep])),
        Err(DecodeError::BadGeometry("collections nest too deeply"))
    );
}

#[test]
fn the_srid_is_part_of_ewkt_and_wkb_is_kept_byte_by_byte() {
    let point = point(-2.0, 1.5);
    let bytes = stored(4326, &[&point]);
    assert_eq!(
        text(Flavor::MySql, GeometryForm::Ewkt, &bytes).as_deref(),
        Ok("SRID=4326;POINT(-2 1.5)")
    );
    assert_eq!(
        text(Flavor::MySql, GeometryForm::Wkt, &bytes).as_deref(),
        Ok("POINT(-2 1.5)")
    );
    let mut out = Vec::new();
    let form = GeometryForm::Wkb;
    print(
        Geometry {
            form,
            flavor: Flavor::MySql,
        },
        &bytes,
        &mut out,
    )
    .expect("bytes");
    assert_eq!(out, point);
}

#[test]
fn the_high_byte_may_come_first() {
    let mut wkb = vec![0, 0, 0, 0, 1];
    wkb.extend(1.0f64.to_be_bytes());
    wkb.extend(2.0f64.to_be_bytes());
    assert_eq!(wkt(Flavor::MySql, &[&wkb]), "POINT(1 2)");
}

#[test]
fn broken_geometries_are_refused_wherever_they_are_cut_and_whatever_they_claim() {
    let ring = [
        vec![2, 0, 0, 0],
        point(0.0, 0.0)[5..].to_vec(),
        point(1.0, 1.0)[5..].to_vec(),
    ]
    .concat();
    let whole = stored(0, &[&head(6, 1), &head(3, 1), &ring]);
    let print = |bytes: &[u8]| text(Flavor::MySql, GeometryForm::Wkt, bytes);
    assert_eq!(print(&whole).as_deref(), Ok("MULTIPOLYGON(((0 0,1 1)))"));
    for length in 0..whole.len() {
        assert_eq!(print(&whole[..length]), Err(TOO_SHORT), "cut at {length}");
    }
    let trailing = [whole.as_slice(), &[0]].concat();
    assert!(print(&trailing).is_err());
    // Four billion points in no bytes: no room is made for them.
    let liar = stored(0, &[&[1, 2, 0, 0, 0, 255, 255, 255, 255]]);
    assert_eq!(print(&liar), Err(TOO_SHORT));
    // Three dimensions, an unknown kind, a kind that a multipolygon cannot hold, a byte order that is none.
    assert_eq!(print(&stored(0, &[&[1, 233, 3, 0, 0]])), Err(BAD_TYPE));
    assert_eq!(print(&stored(0, &[&[1, 0, 0, 0, 0]])), Err(BAD_TYPE));
    assert_eq!(
        print(&stored(0, &[&head(6, 1), &point(1.0, 1.0)])),
        Err(BAD_TYPE)
    );
    assert!(print(&stored(0, &[&[2, 1, 0, 0, 0]])).is_err());
}
