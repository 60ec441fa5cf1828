//! `culvert policy`.

use std::io::{IsTerminal, Read};
use std::path::Path;

use culvert_api::{Bundle, ErrorBody, MAX_LISTED, ResourcePath, Unknown, Warning};
use culvert_model::Fabric;
use serde::Serialize;
use serde_json::Value;

use super::apply::{self, Options};
use crate::args::Policy;
use crate::client::Client;
use crate::error::Error;
use crate::output::show;
use crate::text::{line, warnings};

pub(super) fn run(command: &Policy, client: &Client, json: bool) -> Result<String, Error> {
    match command {
        Policy::Apply { file, merge, dry_run, lenient, force, no_wait } => {
            let asks = !json && file != Path::new("-") && std::io::stdin().is_terminal();
            let options = Options {
                merge: *merge,
                dry_run: *dry_run,
                lenient: *lenient,
                force: *force,
                no_wait: *no_wait,
                asks,
            };
            apply::run(&read(file)?, options, client, json)
        }
        Policy::Show { path } => show_policy(path.as_deref(), client),
        Policy::Validate { file, lenient } => validate(&read(file)?, unknown(*lenient), json),
        Policy::Rules => super::views::rules(client, json),
    }
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    if path == Path::new("-") {
        let mut text = Vec::new();
        std::io::stdin().read_to_end(&mut text).map_err(failed)?;
        return Ok(text);
    }
    std::fs::read(path).map_err(failed)
}

fn unknown(lenient: bool) -> Unknown {
    if lenient { Unknown::Ignored } else { Unknown::Refused }
}

/// Policies are JSON, with or without `--json`.
fn show_policy(path: Option<&str>, client: &Client) -> Result<String, Error> {
    let value: Value = match path {
        None => client.get("/culvert/v1/bundle")?,
        Some(path) => {
            let path =
                ResourcePath::parse(path).map_err(|e| Error::Refused(Box::new(ErrorBody::from(&e))))?;
            client.get(&format!("/networking/v1{path}"))?
        }
    };
    Ok(show(&value, true, |_| String::new()))
}

/// Summary of a valid policy.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Valid {
    valid: bool,
    virtual_networks: usize,
    virtual_subnets: usize,
    network_interfaces: usize,
    servers: usize,
    access_control_lists: usize,
    warnings: Vec<Warning>,
    #[serde(skip_serializing_if = "is_zero")]
    more_warnings: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// Checks a policy; returns it with its warnings, and how many more there are.
pub(super) fn check(body: &[u8], unknown: Unknown) -> Result<(Fabric, Vec<Warning>, usize), Error> {
    let refused = |body: ErrorBody| Error::Refused(Box::new(body));
    let parsed = Bundle::read(body, unknown).map_err(|found| refused(found.body()))?;
    let checked = Fabric::check(&parsed.bundle).map_err(|mut problems| {
        problems.warnings.splice(0..0, parsed.warnings.iter().cloned());
        problems.more_warnings += parsed.more_warnings;
        refused(problems.body())
    })?;
    let mut found: Vec<Warning> = parsed.warnings.into_iter().chain(checked.warnings).collect();
    let more = parsed.more_warnings + checked.more_warnings + found.len().saturating_sub(MAX_LISTED);
    found.truncate(MAX_LISTED);
    Ok((checked.fabric, found, more))
}

fn validate(body: &[u8], unknown: Unknown, json: bool) -> Result<String, Error> {
    let (fabric, found, more_warnings) = check(body, unknown)?;
    let valid = Valid {
        valid: true,
        virtual_networks: fabric.networks.len(),
        virtual_subnets: fabric.networks.iter().map(|n| n.subnets.len()).sum(),
        network_interfaces: fabric.interfaces.len(),
        servers: fabric.hosts.len(),
        access_control_lists: fabric.acls.len(),
        warnings: found,
        more_warnings,
    };
    Ok(show(&valid, json, |v| {
        let mut out = String::new();
        warnings(&mut out, &v.warnings, v.more_warnings);
        let text = format!(
            "valid: {} with {}, {} on {}, {}",
            count(v.virtual_networks, "virtual network"),
            count(v.virtual_subnets, "subnet"),
            count(v.network_interfaces, "network interface"),
            count(v.servers, "server"),
            count(v.access_control_lists, "access control list")
        );
        line(&mut out, &text);
        out
    }))
}

/// A number of things.
fn count(n: usize, thing: &str) -> String {
    if n == 1 { format!("1 {thing}") } else { format!("{n} {thing}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIGURE8: &str = include_str!("../../../../docs/examples/figure8.json");

    fn strict(text: &str, json: bool) -> Result<String, Error> {
        validate(text.as_bytes(), Unknown::Refused, json)
    }

    #[test]
    fn a_right_policy_is_counted() {
        let text = strict(FIGURE8, false).unwrap();
        assert_eq!(
            text,
            "valid: 2 virtual networks with 2 subnets, 4 network interfaces on 2 servers, 1 access control list\n"
        );
        let json: Value = serde_json::from_str(&strict(FIGURE8, true).unwrap()).unwrap();
        assert_eq!(json["networkInterfaces"], 4);
    }

    #[test]
    fn a_wrong_policy_shows_every_problem_with_its_remedy() {
        let wrong = FIGURE8.replace("10.1.1.12", "10.1.1.1").replace("6001,", "5001,");
        let error = strict(&wrong, false).unwrap_err();
        let text = error.text();
        assert!(text.starts_with("error: the policy has "), "{text}");
        assert!(
            text.contains("VSID 5001 is already that of /virtualNetworks/contoso/subnets/front"),
            "{text}"
        );
        assert!(text.contains("-> give the virtual machine another address of the subnet"), "{text}");
        let json: Value = serde_json::from_str(&error.json()).unwrap();
        assert!(json["error"]["details"].as_array().unwrap().len() >= 2);
    }

    #[test]
    fn a_property_that_is_not_known_is_refused_and_lenient_lists_it_beside_problems() {
        let odd = FIGURE8.replace("\"accessControlList\"", "\"accesControlList\"");
        let text = strict(&odd, false).unwrap_err().text();
        assert!(text.contains("\"accesControlList\", which is not known here"), "{text}");
        assert!(text.contains("-> write accessControlList"), "{text}");
        let warned = validate(odd.as_bytes(), Unknown::Ignored, false).unwrap();
        assert!(warned.contains("warning: /virtualNetworks/contoso.properties.subnets[front].properties: the property \"accesControlList\" is not known here and is left out"), "{warned}");
        let both = odd.replace("10.1.1.12", "10.1.1.1");
        let text = validate(both.as_bytes(), Unknown::Ignored, false).unwrap_err().text();
        assert!(text.contains("is the router's") && text.contains("warning: /virtualNetworks/"), "{text}");
    }

    #[test]
    fn many_problems_are_counted() {
        let text = strict(&format!("[{}0]", "0,".repeat(149)), false).unwrap_err().text();
        assert!(
            text.starts_with("error: the document has 150 problems, of which the first 100 are listed"),
            "{text}"
        );
        assert!(text.ends_with("  * and 50 more\n"), "{text}");
    }

    #[test]
    fn all_examples_are_right() {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples");
        let files = std::fs::read_dir(examples).unwrap().map(|file| file.unwrap().path());
        let valid = files.map(|file| validate(&read(&file).unwrap(), Unknown::Refused, true).unwrap());
        assert!(valid.filter(|text| text.contains("\"warnings\": []")).count() >= 3);
    }

    #[test]
    fn a_missing_file_is_named() {
        let text = read(Path::new("/nowhere/policy.json")).unwrap_err().text();
        assert!(text.contains("/nowhere/policy.json") && text.contains("-> "), "{text}");
    }
}
