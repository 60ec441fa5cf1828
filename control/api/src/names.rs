//! Names in documents: what a mistyped one may mean, and what has a name but does nothing yet.

/// Longest part of a client's text that a message repeats, in characters.
const LONGEST: usize = 60;
/// Longest name that is compared with others.
const COMPARED: usize = 256;

/// Properties of Microsoft's that say what packets shall meet, and that nothing carries out yet: lower case.
const NOT_IMPLEMENTED: [&str; 22] = [
    "bgprouters",
    "dhcpoptions",
    "dnssettings",
    "encryptioncredential",
    "encryptionenabled",
    "internaldnsnamelabel",
    "ipreservations",
    "loadbalancerbackendaddresspools",
    "loadbalancerinboundnatrules",
    "logging",
    "networksecuritygroup",
    "portsettings",
    "privateipallocationmethod",
    "publicipaddress",
    "qossettings",
    "routetable",
    "securitytags",
    "serviceinsertion",
    "serviceinsertionelements",
    "unbilledethernetaddress",
    "virtualnetworkpeerings",
    "virtualserver",
];

/// Whether a property is one of Microsoft's that is not implemented.
pub(crate) fn is_not_implemented(name: &str) -> bool {
    NOT_IMPLEMENTED.contains(&name.to_ascii_lowercase().as_str())
}

/// A client's text for a message: short ones in full.
pub(crate) fn short(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// The candidate that a mistyped text is closest to, if it is close.
pub fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if text.len() > COMPARED {
        return None;
    }
    let text = text.to_ascii_lowercase();
    let by_distance = candidates.into_iter().map(|c| (distance(&c.to_ascii_lowercase(), &text), c));
    // A short name is not like every other short one.
    let close = by_distance.min().filter(|(d, _)| *d <= 3 && d * 2 < text.len());
    close.map(|(_, candidate)| candidate)
}

/// Levenshtein's distance of two short texts.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
