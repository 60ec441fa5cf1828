//! Pictures contain every measured point; data of other programs is refused.

use serde_json::json;

use super::{Axis, draw, of_ovs_dpdk, of_switch};

#[test]
fn every_point_is_drawn() {
    let row = |work, flows: u32, bytes: u32| json!({"work": work, "flows": flows, "bytes": bytes, "cycles": 60.0 + f64::from(flows).log10()});
    let cases = [(1, 64), (1000, 64), (1000, 512), (1000, 1500), (100_000, 64)];
    let works = ["VXLAN encap", "VXLAN decap", "NVGRE encap", "NVGRE decap"];
    let rows: Vec<_> =
        works.iter().flat_map(|work| cases.map(|(flows, bytes)| row(work, flows, bytes))).collect();
    let figures = of_switch(&json!({ "rows": rows })).unwrap();
    assert_eq!(figures.iter().map(|f| f.name).collect::<Vec<_>>(), ["switch-flows", "switch-bytes"]);
    assert!(figures[0].title.contains("64 bytes") && figures[1].title.contains("1000 flows"));
    for figure in &figures {
        let text = draw(figure);
        // Two encapsulations with three points in two panels, and the legend's two marks.
        assert_eq!(text.matches("<circle").count(), 2 * 3 + 1, "{}", figure.name);
        assert_eq!(text.matches("<polygon").count(), 2 * 3 + 1, "{}", figure.name);
    }
}

#[test]
fn other_data_is_refused() {
    assert!(of_switch(&json!({})).is_err());
    assert!(of_ovs_dpdk(&json!({"rows": []})).is_err());
    assert!(of_switch(&json!({"rows": [{"work": "VXLAN encap", "bytes": 64, "flows": 1}]})).is_err());
    assert!(of_ovs_dpdk(&json!({"rows": [{"work": 1}]})).is_err());
}

#[test]
fn axes_contain_their_values() {
    assert_eq!(Axis::decades(&[1.0, 1e6]).ticks.len(), 7);
    assert_eq!(Axis::halves(&[55.0, 1600.0]).ends, (50.0, 2000.0));
    assert_eq!(Axis::from_zero(&[55.0, 118.0]).ticks, [0.0, 20.0, 40.0, 60.0, 80.0, 100.0, 120.0]);
    for axis in [Axis::decades(&[5.0]), Axis::halves(&[5.0]), Axis::from_zero(&[0.0]), Axis::of(&[])] {
        assert!((0.0..=1.0).contains(&axis.place(5.0)) && axis.place(f64::MAX) <= 1.0, "{axis:?}");
    }
}
