//! Identifiers: what is accepted, what is refused and what the refusal says.

use core::net::IpAddr;
use std::collections::HashSet;

use culvert_packet::{Class, Encap, MacAddr, ParseError, Prefix, Rdid, Reason, VlanId, Vni, Vsid};

#[test]
fn mac_addresses_in_all_three_forms_are_the_same() {
    let mac = MacAddr([0x00, 0x1d, 0xd8, 0x07, 0x00, 0xfe]);
    for text in ["00:1d:d8:07:00:fe", "00-1D-D8-07-00-FE", "001DD80700FE"] {
        assert_eq!(text.parse(), Ok(mac), "{text}");
    }
    assert_eq!(mac.to_string(), "00:1d:d8:07:00:fe");
    for text in [
        "",
        "00:1d:d8:07:00",
        "00:1d:d8:07:00:0",
        "00:1d-d8:07:00:fe",
        "001dd8:0700fe",
        "0g1dd80700fe",
        "0é1dd80700f",
    ] {
        assert_eq!(text.parse::<MacAddr>(), Err(ParseError::Mac), "{text}");
    }
}

#[test]
fn mac_groups_are_told_from_stations() {
    assert!(MacAddr::BROADCAST.is_broadcast() && MacAddr::BROADCAST.is_multicast());
    assert!(MacAddr([1, 0, 0x5e, 0, 0, 1]).is_multicast());
    assert!(!MacAddr::ZERO.is_unicast());
    assert!(MacAddr([0, 0x1d, 0xd8, 7, 0, 1]).is_unicast());
}

#[test]
fn vsid_range_is_that_of_rfc_7637() {
    for good in [4096, 5001, 0xff_fffe] {
        let vsid = Vsid::new(good).unwrap();
        assert_eq!((vsid.get(), vsid.vni().get()), (good, good));
    }
    for bad in [0, 4095, 0xff_ffff, 0x100_0000, u32::MAX] {
        let message = Vsid::new(bad).unwrap_err().to_string();
        for part in [bad, 4096, 16_777_214] {
            assert!(message.contains(&part.to_string()), "{message}");
        }
    }
    assert!(Vni::new(0).is_ok() && Vni::new(0xff_ffff).is_ok() && Vni::new(0x100_0000).is_err());
    assert!(
        VlanId::new(0).is_err()
            && VlanId::new(1).is_ok()
            && VlanId::new(4094).is_ok()
            && VlanId::new(4095).is_err()
    );
}

#[test]
fn rdid_text_is_canonical_with_or_without_braces() {
    let text = "8e1b7a66-3f0c-4b0e-9d5c-2f1a6f0c5001";
    let rdid: Rdid = text.parse().unwrap();
    assert_eq!(rdid.to_string(), text);
    assert_eq!(rdid.0[..4], [0x8e, 0x1b, 0x7a, 0x66]);
    assert_eq!(format!("{{{}}}", text.to_uppercase()).parse(), Ok(rdid));
    for bad in [
        "",
        "{}",
        "8e1b7a663f0c4b0e9d5c2f1a6f0c5001",
        "8e1b7a66-3f0c-4b0e-9d5c-2f1a6f0c500",
        "{8e1b7a66-3f0c-4b0e-9d5c-2f1a6f0c5001",
    ] {
        assert_eq!(bad.parse::<Rdid>(), Err(ParseError::Guid), "{bad}");
    }
}

#[test]
fn prefixes_contain_and_overlap() {
    let prefix = |text: &str| text.parse::<Prefix>().unwrap();
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let sql = prefix("10.1.1.0/24");
    assert!(sql.contains(address("10.1.1.255")) && !sql.contains(address("10.1.2.0")));
    assert!(!sql.contains(address("::ffff:10.1.1.1")));
    assert!(sql.overlaps(&prefix("10.0.0.0/8")) && prefix("10.0.0.0/8").overlaps(&sql));
    assert!(!sql.overlaps(&prefix("10.1.2.0/24")));
    assert!(!Prefix::ANY_V4.overlaps(&Prefix::ANY_V6));
    assert!(Prefix::ANY_V6.contains(address("ffff::1")) && Prefix::ANY_V4.contains(address("255.0.0.1")));
    assert_eq!(sql.lowest_host(), address("10.1.1.1"));
    assert_eq!(sql.last(), address("10.1.1.255"));
    assert_eq!(prefix("fd00:1::/64").last(), address("fd00:1::ffff:ffff:ffff:ffff"));
    assert_eq!(prefix("10.1.1.7"), prefix("10.1.1.7/32"));
    assert_eq!(sql.to_string(), "10.1.1.0/24");
}

#[test]
fn prefixes_with_host_bits_are_refused() {
    assert_eq!("10.1.1.11/24".parse::<Prefix>(), Err(ParseError::HostBits));
    assert_eq!("fd00::1/64".parse::<Prefix>(), Err(ParseError::HostBits));
    for bad in [
        "",
        "10.1.1/24",
        "10.1.1.0/33",
        "fd00::/129",
        "10.1.1.0/",
        "10.1.1.0/x",
        "10.1.1.0/-1",
        "10.1.1.0/24/8",
    ] {
        assert_eq!(bad.parse::<Prefix>(), Err(ParseError::Prefix), "{bad}");
    }
}

#[test]
fn encapsulations_have_names_and_numbers() {
    assert_eq!("nvgre".parse(), Ok(Encap::Nvgre));
    assert_eq!("VXLAN".parse(), Ok(Encap::Vxlan));
    assert!("geneve".parse::<Encap>().is_err());
    assert_eq!([0, 1, 2, 3].map(Encap::from_u8), [None, Some(Encap::Vxlan), Some(Encap::Nvgre), None]);
}

#[test]
fn reasons_have_one_word_and_one_number_each() {
    let words: HashSet<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
    assert_eq!(words.len(), Reason::ALL.len());
    for &reason in Reason::ALL {
        let word = reason.as_str();
        assert!(word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{word}");
        // The word is the variant's name, so that one can be searched for with the other.
        assert_eq!(word.replace('_', ""), format!("{reason:?}").to_lowercase());
        assert_eq!(Reason::from_u8(reason as u8), Some(reason));
        assert_eq!(word.parse(), Ok(reason));
        assert!(reason.describe().ends_with('.'), "{word}");
    }
    assert_eq!(Reason::from_u8(0), None);
    assert_eq!("no_such_word".parse::<Reason>(), Err(ParseError::Reason));
    assert_eq!(Reason::AclDeny.class(), Class::Drop);
    assert_eq!(Reason::Miss.class(), Class::Punt);
    assert_eq!(Reason::NoFlowOffload.class(), Class::NotOffloaded);
}

#[test]
fn numbers_of_reasons_do_not_change() {
    let known = [
        (Reason::Truncated, 1),
        (Reason::OuterTruncated, 16),
        (Reason::NoVport, 40),
        (Reason::Miss, 80),
        (Reason::PendingOverflow, 100),
        (Reason::NoFlowOffload, 140),
    ];
    for (reason, number) in known {
        assert_eq!(reason as u8, number, "{reason}");
    }
}

#[cfg(feature = "serde")]
#[test]
fn serialised_as_text_and_numbers() {
    let values = (
        Vsid::new(5001).unwrap(),
        "00:1d:d8:07:00:01".parse::<MacAddr>().unwrap(),
        "10.1.1.0/24".parse::<Prefix>().unwrap(),
        Reason::AclDeny,
        Encap::Nvgre,
    );
    let text = serde_json::to_string(&values).unwrap();
    assert_eq!(text, r#"[5001,"00:1d:d8:07:00:01","10.1.1.0/24","acl_deny","NVGRE"]"#);
    let back: (Vsid, MacAddr, Prefix, Reason, Encap) = serde_json::from_str(&text).unwrap();
    assert_eq!(back, values);
    assert!(serde_json::from_str::<Vsid>("4095").unwrap_err().to_string().contains("4096"));
    assert!(serde_json::from_str::<MacAddr>("\"nonsense\"").unwrap_err().to_string().contains("nonsense"));
}
