# SPDX-License-Identifier: Apache-2.0
#
# How evidence of GPUs is appraised unless the operator says otherwise; values as in
# default_cpu.rego. An unknown device is contraindicated.

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
	not what in {"sampledevice", "unbound-evidence"}
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

# --- sampledevice: the form of evidence without any proof ---

insecure_sample if {
	is_object(input.sampledevice)
	data.operator.insecure_allow_sample == true
}

hardware := 2 if insecure_sample

executables := 3 if insecure_sample

configuration := 2 if insecure_sample

# --- nvidia: measurements that a GPU signed ---
# hardware: NVIDIA certifies the key, which the verifier has checked; it shows nothing
# otherwise. executables: every measurement is as in one of the reference values
# nvidia_measurements, each an object, index → value, list of values, or "any"; an index that
# it does not name must be zero. configuration: versions of VBIOS and driver are registered,
# under the names of Trustee's policy. Nothing registered: nothing is accepted.

hardware := 2 if is_object(input.nvidia.measurements)

executables := 3 if {
	some reference in nvidia_references
	nvidia_mismatches(reference) == set()
}

configuration := 2 if {
	is_object(input.nvidia.config)
	nvidia_versions == {"vbios_version", "driver_version"}
}

nvidia_references contains reference if {
	is_object(input.nvidia.measurements)
	registered := query_reference_value("nvidia_measurements")
	is_array(registered)
	some reference in registered
	is_object(reference)
	count(reference) > 0
}

nvidia_mismatches(reference) := (object.keys(input.nvidia.measurements) | object.keys(reference)) - {index |
	some index, value in input.nvidia.measurements
	nvidia_matches(object.get(reference, index, []), value)
}

nvidia_matches(allowed, _) if allowed == "any"

nvidia_matches(allowed, value) if allowed == value

nvidia_matches(allowed, value) if {
	is_array(allowed)
	value in allowed
}

# Not measured: there is nothing of this index in the device.
nvidia_matches(allowed, value) if {
	allowed == []
	trim(value, "0") == ""
}

nvidia_allowed := {
	"vbios_version": query_reference_value("allowed_vbios_versions"),
	"driver_version": query_reference_value("allowed_driver_versions"),
}

nvidia_versions contains name if {
	some name, allowed in nvidia_allowed
	is_array(allowed)
	input.nvidia.config[name] in allowed
}

findings contains finding if {
	is_object(input.nvidia)
	count(nvidia_references) == 0
	finding := {
		"check": "nvidia.measurements",
		"problem": "no measurements of GPUs are registered",
		"actual": object.get(input.nvidia, "measurements", null),
		"expected": "reference value nvidia_measurements",
	}
}

findings contains finding if {
	executables != 3
	some reference in nvidia_references
	some index in nvidia_mismatches(reference)
	finding := {
		"check": concat(".", ["nvidia.measurements", index]),
		"problem": "this measurement is not the registered one",
		"actual": object.get(input.nvidia.measurements, index, null),
		"expected": object.get(reference, index, "zero"),
	}
}

findings contains finding if {
	is_object(input.nvidia)
	some name, allowed in nvidia_allowed
	not name in nvidia_versions
	finding := {
		"check": concat(".", ["nvidia", name]),
		"problem": "this version is not among the reference values",
		"actual": object.get(object.get(input.nvidia, "config", {}), name, null),
		"expected": allowed,
	}
}
