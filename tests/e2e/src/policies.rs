//! Policies of the documentation's examples, and changes that several tests make to them.

use culvert_packet::Encap;
use serde_json::Value;

/// The policy of figure 8 (two tenants, two hosts), with the encapsulation `encap`.
///
/// # Errors
/// The example is not JSON.
pub fn figure8(encap: Encap) -> Result<Value, String> {
    let text = include_str!("../../../docs/examples/figure8.json");
    let mut bundle: Value = serde_json::from_str(text).map_err(|e| format!("figure8.json: {e}"))?;
    let configuration = &mut bundle["virtualNetworkManager"][0]["properties"];
    configuration["networkVirtualizationProtocol"] = Value::from(encap.to_string());
    Ok(bundle)
}

/// The policy of the routed example: Contoso also has VSID 5002, a second VM on host 1, and a vport without a VF.
///
/// # Errors
/// The example is not JSON.
pub fn routed() -> Result<Value, String> {
    let text = include_str!("../../../docs/examples/routed.json");
    serde_json::from_str(text).map_err(|e| format!("routed.json: {e}"))
}

/// Keeps only the first uplink of each host.
pub fn one_uplink(policy: &mut Value) {
    for server in policy["servers"].as_array_mut().into_iter().flatten() {
        if let Some(uplinks) = server["properties"]["networkInterfaces"].as_array_mut() {
            uplinks.truncate(1);
        }
    }
}

/// Puts the uplinks of both hosts of a policy into one provider subnet with this VLAN. Host 2 gets the provider addresses
/// 192.168.1.20 and 192.168.1.21.
pub fn on_one_vlan(policy: &mut Value, vlan: u16) {
    policy["logicalNetworks"][0]["properties"]["subnets"][0]["properties"]["vlanID"] = vlan.into();
    let uplinks = policy["servers"][1]["properties"]["networkInterfaces"].as_array_mut();
    for (n, uplink) in uplinks.into_iter().flatten().enumerate() {
        uplink["properties"]["logicalSubnet"]["resourceRef"] =
            "/logicalNetworks/provider/subnets/east".into();
        uplink["properties"]["providerAddress"] = format!("192.168.1.{}", 20 + n).into();
    }
}

/// Sets how a network interface without a VF attaches: `tap` or `vhostUser`.
///
/// # Errors
/// The policy has no such interface.
pub fn set_software_port(policy: &mut Value, interface: &str, port: &str) -> Result<(), String> {
    let interfaces = policy["networkInterfaces"].as_array_mut().into_iter().flatten();
    let found = interfaces.into_iter().find(|i| i["resourceId"] == interface);
    let found = found.ok_or_else(|| format!("the policy has no interface {interface}"))?;
    found["properties"]["softwarePort"] = port.into();
    Ok(())
}

/// The first provider address of a host, which counts from 0.
pub fn provider_address(policy: &Value, host: usize) -> String {
    let uplinks = &policy["servers"][host]["properties"]["networkInterfaces"];
    uplinks[0]["properties"]["providerAddress"].as_str().unwrap_or_default().to_owned()
}
