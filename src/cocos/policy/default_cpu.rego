# SPDX-License-Identifier: Apache-2.0
#
# How evidence of CPUs, and of what stands in for them, is appraised unless the operator
# says otherwise. Values are those of AR4SI: 2 and 3 affirm, 33 and 36 warn, 97 contradicts.
#
# input  the verified claims under the TEE's name, report_data, runtime_data_claims,
#        init_data, init_data_claims
# data   reference_values (see query_reference_value), operator
#
# What no rule below recognises stays unrecognised: an unknown TEE is contraindicated.

package policy

import rego.v1

default hardware := 97

default executables := 33

default configuration := 36

trust_claims := {
	"instance-identity": 0,
	"configuration": configuration,
	"executables": executables,
	"file-system": 0,
	"hardware": hardware,
	"runtime-opaque": 0,
	"storage-opaque": 0,
	"sourced-data": 0,
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
