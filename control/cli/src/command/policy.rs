//! `culvert policy`.

use std::io::Read;
use std::path::Path;

use culvert_api::{Bundle, ErrorBody, ResourcePath, Warning};
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
        Policy::Apply { file, merge, dry_run, no_wait } => {
            let options = Options { merge: *merge, dry_run: *dry_run, no_wait: *no_wait };
            apply::run(&read(file)?, options, client, json)
        }
        Policy::Show { path } => show_policy(path.as_deref(), client),
        Policy::Validate { file } => validate(&read(file)?, json),
        Policy::Rules => super::views::rules(client, json),
    }
}

pub(super) fn read(path: &Path) -> Result<String, Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(failed)?;
        return Ok(text);
    }
    std::fs::read_to_string(path).map_err(failed)
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
}

/// Checks a policy; returns it with its warnings.
pub(super) fn check(text: &str) -> Result<(Fabric, Vec<Warning>), Error> {
    let refused = |code, details: Vec<ErrorBody>| {
        let message = format!("the policy has {}", count(details.len(), "problem"));
        let body = ErrorBody { details, ..ErrorBody::new(code, message, "", "") };
        Error::Refused(Box::new(body))
    };
    let parsed = Bundle::parse(text)
        .map_err(|errors| refused("InvalidDocument", errors.iter().map(ErrorBody::from).collect()))?;
    let checked = Fabric::check(&parsed.bundle)
        .map_err(|problems| refused("InvalidPolicy", problems.iter().map(ErrorBody::from).collect()))?;
    Ok((checked.fabric, parsed.warnings.into_iter().chain(checked.warnings).collect()))
}

fn validate(text: &str, json: bool) -> Result<String, Error> {
    let (fabric, found) = check(text)?;
    let valid = Valid {
        valid: true,
        virtual_networks: fabric.networks.len(),
        virtual_subnets: fabric.networks.iter().map(|n| n.subnets.len()).sum(),
        network_interfaces: fabric.interfaces.len(),
        servers: fabric.hosts.len(),
        access_control_lists: fabric.acls.len(),
        warnings: found,
    };
    Ok(show(&valid, json, |v| {
        let mut out = String::new();
        warnings(&mut out, &v.warnings);
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

    #[test]
    fn a_right_policy_is_counted() {
        let text = validate(FIGURE8, false).unwrap();
        assert_eq!(
            text,
            "valid: 2 virtual networks with 2 subnets, 4 network interfaces on 2 servers, 1 access control list\n"
        );
        let json: Value = serde_json::from_str(&validate(FIGURE8, true).unwrap()).unwrap();
        assert_eq!(json["networkInterfaces"], 4);
    }

    #[test]
    fn a_wrong_policy_shows_every_problem_with_its_remedy() {
        let wrong = FIGURE8.replace("10.1.1.12", "10.1.1.1").replace("6001,", "5001,");
        let error = validate(&wrong, false).unwrap_err();
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
    fn all_examples_are_right() {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples");
        let files = std::fs::read_dir(examples).unwrap().map(|file| file.unwrap().path());
        let valid = files.map(|file| validate(&read(&file).unwrap(), true).unwrap());
        assert!(valid.filter(|text| text.contains("\"warnings\": []")).count() >= 3);
    }

    #[test]
    fn a_missing_file_is_named() {
        let text = read(Path::new("/nowhere/policy.json")).unwrap_err().text();
        assert!(text.contains("/nowhere/policy.json") && text.contains("-> "), "{text}");
    }
}
