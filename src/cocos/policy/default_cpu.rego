# SPDX-License-Identifier: Apache-2.0
#
# How evidence of CPUs, and of what stands in for them, is appraised unless the operator
# says otherwise. Values are those of AR4SI: 2 and 3 affirm, 33 and 36 warn, 97 contradicts.
#
# input  the verified claims under the TEE's name, report_data, runtime_data_claims,
#        init_data, init_data_claims
# data   reference_values (see query_reference_value), operator
#
# findings says, for whoever may know, what is missing from the sets that the rules below
# decide by, so that the explanation is the evaluation itself. Only what is in a set
# counts: a rule that fails affirms nothing.
#
# What no rule below recognises stays unrecognised: an unknown TEE is contraindicated.

package policy

import rego.v1

default identity := 0

default hardware := 97

default executables := 33

default configuration := 36

trust_claims := {
	"instance-identity": identity,
	"configuration": configuration,
	"executables": executables,
	"file-system": 0,
	"hardware": vouched,
	"runtime-opaque": 0,
	"storage-opaque": 0,
	"sourced-data": 0,
}

# --- evidence that an operator takes although it is bound to no nonce ---
# It says that some machine was so once, not which one shows it.

identity := 97 if "unbound-evidence" in input.insecure

# Whatever is found below: a root that only the operator believes vouches for nobody.

untrusted_root if {
	some what in input.insecure
	not what in {"sample", "unbound-evidence"}
}

vouched := 97 if untrusted_root else := hardware

findings contains finding if {
	untrusted_root
	finding := {
		"check": "insecure",
		"problem": "the evidence leads to a root that only the operator of this service believes",
		"actual": input.insecure,
		"expected": [],
	}
}

# --- sample: the form of evidence without any proof ---
# Affirming only because the operator wrote so; the token says that it is insecure.

insecure_sample if {
	is_object(input.sample)
	data.operator.insecure_allow_sample == true
}

hardware := 2 if insecure_sample

executables := 3 if insecure_sample

configuration := 2 if {
	insecure_sample
	input.sample.debug == false
}

# --- tpm: a measured boot, quoted by a TPM ---
# hardware: the key that signs the quote is proved, by somebody who knows this very TPM: its
# host, or the operator. executables: what the firmware started, the kernel image, and the
# lack of any override are as in the reference values, and so is every other PCR that the
# operator registered values of, such as those of the firmware. Of a vendor's TPM the
# firmware has to be registered: other firmware lets whoever holds it extend what it likes.
# configuration: it is no debug image, and what the host passed in is shown and, if the
# operator registered a tpm_pcr08, as registered. Nothing registered: nothing is accepted.

hardware := 2 if {
	is_object(input.tpm)
	tpm_vouched
}

hardware := 2 if {
	is_object(input.tpm)
	tpm_allowed
}

# The manager of its VM vouches for the TPM, or the operator for the key in it.
tpm_vouched if input.tpm.ak_trusted in {"manager-ca", "registered"}

# Its vendor certified it, as all that it sells, and the operator named this one.
tpm_allowed if {
	input.tpm.ak_trusted == "vendor-ca"
	input.tpm.ek_allowed == true
}

executables := 3 if {
	is_object(input.tpm)
	tpm_recognised == tpm_wanted
}

configuration := 2 if {
	is_object(input.tpm)
	tpm_configured == {"no debug", "init data as registered", "init data shown"}
}

# Software resets 16 and 23; those between begin with other values than zero.
tpm_pcrs := {
	"pcr00", "pcr01", "pcr02", "pcr03", "pcr04", "pcr05", "pcr06", "pcr07",
	"pcr08", "pcr09", "pcr10", "pcr11", "pcr12", "pcr13", "pcr14", "pcr15",
}

# PCR → values that the operator registered.
tpm_reference := {pcr: values |
	some pcr in tpm_pcrs
	values := query_reference_value(concat("_", ["tpm", pcr]))
	is_array(values)
}

tpm_wanted contains pcr if some pcr in ["pcr04", "pcr11", "pcr12"]

tpm_wanted contains pcr if {
	not tpm_vouched
	some pcr in ["pcr00", "pcr07"]
}

tpm_wanted contains pcr if {
	some pcr in tpm_pcrs - {"pcr08"}
	query_reference_value(concat("_", ["tpm", pcr])) != null
}

tpm_recognised contains pcr if {
	some pcr in tpm_wanted
	input.tpm[pcr] in object.get(tpm_reference, pcr, [])
}

tpm_configured contains "no debug" if input.tpm.debug == false

tpm_configured contains "init data as registered" if query_reference_value("tpm_pcr08") == null

tpm_configured contains "init data as registered" if {
	input.tpm.pcr08 in object.get(tpm_reference, "pcr08", [])
}

tpm_configured contains "init data shown" if is_object(input.init_data_claims)

tpm_configured contains "init data shown" if {
	input.tpm.pcr08 == "0000000000000000000000000000000000000000000000000000000000000000"
}

findings contains finding if {
	is_object(input.tpm)
	not tpm_vouched
	not tpm_allowed
	finding := {
		"check": "tpm.ek",
		"problem": "anybody can buy a TPM that its vendor certified: this one is not on the allow-list",
		"actual": object.get(input.tpm, "ek_fingerprint", null),
		"expected": "kbs --tpm-ek-allow, or kbs-client config set-tpm-eks",
	}
}

tpm_problem(pcr) := "of a vendor's TPM, values of this PCR have to be registered" if {
	pcr in {"pcr00", "pcr07"}
	query_reference_value(concat("_", ["tpm", pcr])) == null
} else := "this PCR is not one of the reference values"

findings contains finding if {
	is_object(input.tpm)
	some pcr in tpm_wanted
	not pcr in tpm_recognised
	finding := {
		"check": concat(".", ["tpm", pcr]),
		"problem": tpm_problem(pcr),
		"actual": object.get(input.tpm, pcr, null),
		"expected": object.get(tpm_reference, pcr, []),
	}
}

findings contains finding if {
	is_object(input.tpm)
	not "no debug" in tpm_configured
	finding := {
		"check": "tpm.debug",
		"problem": "a debug image, open to its host, or nothing shows that it is none",
		"actual": object.get(input.tpm, "debug", null),
		"expected": false,
	}
}

findings contains finding if {
	is_object(input.tpm)
	not "init data as registered" in tpm_configured
	finding := {
		"check": "tpm.pcr08",
		"problem": "the init data is not one of the reference values",
		"actual": object.get(input.tpm, "pcr08", null),
		"expected": object.get(tpm_reference, "pcr08", []),
	}
}

findings contains finding if {
	is_object(input.tpm)
	not "init data shown" in tpm_configured
	finding := {
		"check": "init_data",
		"problem": "the host passed something in, and the guest does not show it",
		"actual": object.get(input.tpm, "pcr08", null),
		"expected": "the init data in clear",
	}
}

# --- tdx, az-tdx-vtpm, sgx: what Intel's quoting enclave says of a domain or an enclave ---
# hardware: Intel's quoting enclave, a platform at the newest level, and for a domain the
# registered firmware. executables: what was started is registered, for a domain as the
# registers that it was measured into; 3 if the log names the kernel and its command line,
# too. configuration: no debugging, features as registered, and what the host passed in is
# shown. Nothing registered: nothing is accepted. intel_wanted has for each of the three what
# is needed, intel_held what of it there is.

intel_claims := input[intel_tee]

# Claims of two at once are no evidence's.
intel_tee := tee if {
	count(intel_present) == 1
	some tee in intel_present
}

intel_present := {tee | some tee in ["tdx", "az-tdx-vtpm", "sgx"]; is_object(input[tee])}

# What has to be registered: name of the claim → where it is, and the reference value.
intel_registered := {
	"tdx": {
		"hardware": {"quote.body.mr_td": "mr_td"},
		"executables": {"quote.body.rtmr_1": "rtmr_1", "quote.body.rtmr_2": "rtmr_2"},
		"configuration": {"quote.body.xfam": "xfam"},
	},
	"az-tdx-vtpm": {
		"hardware": {"quote.body.mr_td": "mr_td"},
		"executables": {"tpm.pcr11": "tdx_pcr11"},
		"configuration": {"quote.body.xfam": "xfam"},
	},
	"sgx": {
		"hardware": {},
		"executables": {"body.mr_enclave": "mr_enclave"},
		"configuration": {},
	},
}

# What has to be so, whatever is registered.
intel_fixed := {
	"tdx": {
		"hardware": {
			"quote.header.tee_type": "81000000",
			"quote.header.vendor_id": "939a7233f79c4ca9940a0db3957f0607",
			"tcb_status": "UpToDate",
			"collateral_expiration_status": "0",
		},
		"executables": {},
		"configuration": {"td_attributes.debug": false, "td_attributes.septve_disable": true},
	},
	"az-tdx-vtpm": {
		"hardware": {
			"quote.header.tee_type": "81000000",
			"quote.header.vendor_id": "939a7233f79c4ca9940a0db3957f0607",
			"tcb_status": "UpToDate",
			"collateral_expiration_status": "0",
		},
		"executables": {},
		"configuration": {"td_attributes.debug": false},
	},
	"sgx": {
		"hardware": {
			"header.tee_type": "00000000",
			"header.vendor_id": "939a7233f79c4ca9940a0db3957f0607",
			"tcb_status": "UpToDate",
			"collateral_expiration_status": "0",
		},
		"executables": {},
		"configuration": {"debug": false},
	},
}

intel_claim(name) := object.get(intel_claims, split(name, "."), null)

intel_is_registered(value, name) if {
	values := query_reference_value(name)
	is_array(values)
	value in values
}

intel_is_registered(value, name) if {
	values := query_reference_value(name)
	is_string(values)
	value == values
}

intel_expected(name) := values if {
	values := query_reference_value(name)
	values != null
} else := []

intel_wanted[part] contains name if {
	some part, names in intel_registered[intel_tee]
	some name, _ in names
}

intel_wanted[part] contains name if {
	some part, names in intel_fixed[intel_tee]
	some name, _ in names
}

intel_wanted["configuration"] contains "init_data" if intel_tee

intel_held[part] contains name if {
	some part, names in intel_registered[intel_tee]
	some name, reference in names
	intel_is_registered(intel_claim(name), reference)
}

intel_held[part] contains name if {
	some part, names in intel_fixed[intel_tee]
	some name, value in names
	intel_claim(name) == value
}

intel_held["configuration"] contains "init_data" if {
	intel_tee
	is_object(input.init_data_claims)
}

intel_held["configuration"] contains "init_data" if {
	intel_tee
	is_string(input.init_data)
	regex.match(`^0+$`, input.init_data)
}

# On Azure a boot loader may measure into PCR 8, too.
intel_held["configuration"] contains "init_data" if {
	intel_tee == "az-tdx-vtpm"
	intel_is_registered(object.get(input, "init_data", null), "tdx_pcr08")
}

intel_all(part) if {
	count(intel_wanted[part]) > 0
	intel_held[part] == intel_wanted[part]
}

hardware := 2 if intel_all("hardware")

executables := 3 if {
	intel_all("executables")
	intel_tee != "tdx"
}

executables := 3 if {
	intel_all("executables")
	tdx_kernel
	tdx_options
} else := 4 if {
	intel_all("executables")
	intel_tee == "tdx"
}

configuration := 2 if intel_all("configuration")

tdx_kernel if {
	some event in input.tdx.uefi_event_logs
	event.type_name == "EV_EFI_BOOT_SERVICES_APPLICATION"
	"File(kernel)" in event.details.device_paths
	some digest in event.digests
	intel_is_registered(digest.digest, "tdvfkernel")
}

tdx_options if {
	some event in input.tdx.uefi_event_logs
	event.type_name == "EV_EVENT_TAG"
	event.details.string == "LOADED_IMAGE::LoadOptions"
	some digest in event.digests
	intel_is_registered(digest.digest, "tdvfkernelparams")
}

findings contains finding if {
	some part, names in intel_wanted
	some name in names - object.get(intel_held, part, set())
	name in object.keys(intel_registered[intel_tee][part])
	finding := {
		"check": concat(".", [intel_tee, name]),
		"problem": "this is not one of the reference values",
		"actual": intel_claim(name),
		"expected": intel_expected(intel_registered[intel_tee][part][name]),
	}
}

findings contains finding if {
	some part, names in intel_wanted
	some name in names - object.get(intel_held, part, set())
	name in object.keys(intel_fixed[intel_tee][part])
	finding := {
		"check": concat(".", [intel_tee, name]),
		"problem": "this has to be otherwise",
		"actual": intel_claim(name),
		"expected": intel_fixed[intel_tee][part][name],
	}
}

findings contains finding if {
	intel_tee
	not "init_data" in object.get(intel_held, "configuration", set())
	finding := {
		"check": "init_data",
		"problem": "the host passed something in, and the guest does not show it",
		"actual": object.get(input, "init_data", null),
		"expected": "the init data in clear",
	}
}

# --- snp, az-snp-vtpm: memory that the processor encrypts, and that it signs a report of ---
# hardware: AMD's processor, and firmware of registered levels. executables: the measurement
# of what the VM was started with is registered; on Azure, whose firmware is the cloud's, also
# PCR 11 of its virtual TPM. configuration: nobody can debug or migrate it, and what the host
# passed in is shown; 2 if every other setting is as registered, too. Nothing registered:
# nothing is accepted. What a claim has to be registered under:

snp_registered_as := {
	"snp": {
		"hardware": {
			"reported_tcb_bootloader": "snp_bootloader",
			"reported_tcb_microcode": "snp_microcode",
			"reported_tcb_snp": "snp_snp_svn",
			"reported_tcb_tee": "snp_tee_svn",
		},
		"executables": {"measurement": "snp_launch_measurement"},
		"configuration": {
			"platform_smt_enabled": "snp_smt_enabled",
			"platform_tsme_enabled": "snp_tsme_enabled",
			"policy_abi_major": "snp_guest_abi_major",
			"policy_abi_minor": "snp_guest_abi_minor",
			"policy_single_socket": "snp_single_socket",
			"policy_smt_allowed": "snp_smt_allowed",
		},
	},
	"az-snp-vtpm": {
		"hardware": {
			"reported_tcb_bootloader": "tcb_bootloader",
			"reported_tcb_microcode": "tcb_microcode",
			"reported_tcb_snp": "tcb_snp",
			"reported_tcb_tee": "tcb_tee",
		},
		"executables": {"measurement": "measurement", "tpm.pcr11": "snp_pcr11"},
		"configuration": {
			"platform_smt_enabled": "smt_enabled",
			"platform_tsme_enabled": "tsme_enabled",
			"policy_abi_major": "abi_major",
			"policy_abi_minor": "abi_minor",
			"policy_single_socket": "single_socket",
			"policy_smt_allowed": "smt_allowed",
		},
	},
}

# Claims of the one that this evidence is of, with what stands elsewhere in the input: what
# the host passed in, and registers of Azure's TPM.
snp_claims["snp"] := object.union(
	input.snp,
	{"init_data": object.get(input, "init_data", null)},
) if is_object(input.snp)

snp_claims["az-snp-vtpm"] := object.union(
	input["az-snp-vtpm"],
	object.union(
		{"init_data": object.get(input, "init_data", null)},
		{concat(".", ["tpm", pcr]): value | some pcr, value in input["az-snp-vtpm"].tpm},
	),
) if is_object(input["az-snp-vtpm"])

registered(value, name) if value in query_reference_value(name)

registered(value, name) if {
	value != null
	value == query_reference_value(name)
}

# Turin's firmware has one part more. Trustee does not know it: only where it is registered.
snp_wanted[tee] contains "reported_tcb_fmc" if {
	some tee, claims in snp_claims
	claims.reported_tcb_fmc
	query_reference_value("snp_fmc") != null
}

snp_wanted[tee] contains claim if {
	some tee, _ in snp_claims
	some claim, _ in snp_registered_as[tee].hardware
}

snp_recognised[tee] contains "reported_tcb_fmc" if {
	some tee, claims in snp_claims
	registered(claims.reported_tcb_fmc, "snp_fmc")
}

snp_recognised[tee] contains claim if {
	some tee, claims in snp_claims
	some _, names in snp_registered_as[tee]
	some claim, name in names
	registered(claims[claim], name)
}

# Azure's claims are texts.
snp_settled[tee] contains claim if {
	some tee, claims in snp_claims
	some claim in ["policy_debug_allowed", "policy_migrate_ma"]
	claims[claim] in {false, "false"}
}

snp_settled[tee] contains "init_data" if {
	some tee, _ in snp_claims
	is_object(input.init_data_claims)
}

snp_settled[tee] contains "init_data" if {
	some tee, claims in snp_claims
	claims.init_data == "0000000000000000000000000000000000000000000000000000000000000000"
}

# On Azure a boot loader may measure into PCR 8, too.
snp_settled["az-snp-vtpm"] contains "init_data" if {
	registered(snp_claims["az-snp-vtpm"].init_data, "snp_pcr08")
}

snp_sound(tee) if object.keys(snp_settings) - object.get(snp_settled, tee, set()) == set()

snp_as_registered(tee, what) if {
	object.keys(snp_registered_as[tee][what]) - object.get(snp_recognised, tee, set()) == set()
}

hardware := 2 if {
	some tee, claims in snp_claims
	claims.authority_insecure in {false, "false"}
	snp_wanted[tee] - object.get(snp_recognised, tee, set()) == set()
}

executables := 3 if {
	some tee, _ in snp_claims
	snp_as_registered(tee, "executables")
}

configuration := 2 if {
	some tee, _ in snp_claims
	snp_sound(tee)
	snp_as_registered(tee, "configuration")
} else := 3 if {
	is_object(input.snp)
	snp_sound("snp")
}

findings contains finding if {
	some tee, claims in snp_claims
	not claims.authority_insecure in {false, "false"}
	finding := {
		"check": concat(".", [tee, "authority"]),
		"problem": "AMD does not vouch for this processor",
		"actual": object.get(claims, "authority_insecure", null),
		"expected": false,
	}
}

snp_problem(name) := "no value of this is registered" if {
	query_reference_value(name) == null
} else := "this is not one of the reference values"

# Settings that are not as registered lower the verdict of snp, which still affirms.
findings contains finding if {
	some tee, claims in snp_claims
	some what, names in snp_registered_as[tee]
	[tee, what] != ["snp", "configuration"]
	some claim, name in names
	not registered(claims[claim], name)
	finding := {
		"check": concat(".", [tee, claim]),
		"problem": snp_problem(name),
		"actual": object.get(claims, claim, null),
		"expected": query_reference_value(name),
	}
}

findings contains finding if {
	some tee, claims in snp_claims
	"reported_tcb_fmc" in snp_wanted[tee]
	not registered(claims.reported_tcb_fmc, "snp_fmc")
	finding := {
		"check": concat(".", [tee, "reported_tcb_fmc"]),
		"problem": snp_problem("snp_fmc"),
		"actual": claims.reported_tcb_fmc,
		"expected": query_reference_value("snp_fmc"),
	}
}

snp_settings := {
	"policy_debug_allowed": ["the host may read and change the memory of this VM", false],
	"policy_migrate_ma": ["an agent of the host's choice may move this VM elsewhere", false],
	"init_data": ["the host passed something in, and the guest does not show it", "the init data in clear"],
}

findings contains finding if {
	some tee, claims in snp_claims
	some claim in object.keys(snp_settings) - object.get(snp_settled, tee, set())
	finding := {
		"check": concat(".", [tee, claim]),
		"problem": snp_settings[claim][0],
		"actual": object.get(claims, claim, null),
		"expected": snp_settings[claim][1],
	}
}

# --- cca: a realm, and the platform that vouches for its key ---
# hardware: the platform is of a registered kind and has registered firmware, all of it.
# executables: the realm began as registered, and has measured nothing more, or what is
# registered. configuration: the verifier refuses platforms that are not secured; what the
# host passed in is shown.

cca_platform := object.get(object.get(input, "cca", {}), "platform", {})

cca_realm := object.get(object.get(input, "cca", {}), "realm", {})

# Claim → reference value: a list of what it may be.
cca_wanted := {
	"implementation-id": ["cca_implementation_id", object.get(cca_platform, "cca-platform-implementation-id", null)],
	"sw-components": ["cca_sw_components", object.get(cca_platform, "cca-platform-sw-components", null)],
	"initial-measurement": ["cca_realm_initial_measurement", object.get(cca_realm, "cca-realm-initial-measurement", null)],
	"extensible-measurements": ["cca_realm_extensible_measurements", object.get(cca_realm, "cca-realm-extensible-measurements", null)],
}

cca_recognised contains claim if {
	is_object(input.cca)
	some claim, [name, value] in cca_wanted
	values := query_reference_value(name)
	is_array(values)
	value != null
	value in values
}

# A realm that measured nothing needs no value for that.
cca_recognised contains "extensible-measurements" if {
	is_object(input.cca)
	query_reference_value("cca_realm_extensible_measurements") == null
	registers := object.get(cca_realm, "cca-realm-extensible-measurements", null)
	is_array(registers)
	count(registers) == 4
	every register in registers {
		trim(trim_right(register, "="), "A") == ""
	}
}

hardware := 2 if {
	"implementation-id" in cca_recognised
	"sw-components" in cca_recognised
}

executables := 3 if {
	"initial-measurement" in cca_recognised
	"extensible-measurements" in cca_recognised
}

configuration := 2 if cca_shown

cca_shown if {
	is_object(input.cca)
	is_object(input.init_data_claims)
}

cca_shown if {
	is_object(input.cca)
	is_string(input.init_data)
	trim(input.init_data, "0") == ""
}

findings contains finding if {
	is_object(input.cca)
	some claim, [name, value] in cca_wanted
	not claim in cca_recognised
	finding := {
		"check": concat(".", ["cca", claim]),
		"problem": "this is not one of the reference values",
		"actual": value,
		"expected": concat(" ", ["reference value", name]),
	}
}

findings contains finding if {
	is_object(input.cca)
	not cca_shown
	finding := {
		"check": "init_data",
		"problem": "the host passed something in, and the guest does not show it",
		"actual": object.get(input, "init_data", null),
		"expected": "the init data in clear",
	}
}

# --- what the guest's own policy, part of init data, lets run ---

containers := input.init_data_claims.agent_policy_claims.containers

container_images := [image |
	some container in containers
	image := container.OCI.Annotations["io.kubernetes.cri.image-name"]
]

container_uids := [uid |
	some container in containers
	uid := container.OCI.Process.User.UID
]

validated := {name: values |
	some name, values in {
		"container_images": container_images,
		"container_uids": container_uids,
	}
	count(values) > 0
}

extensions := [{
	"name": "ear.trustee.identifiers",
	"key": -18,
	"value": {"validated": validated},
}]
