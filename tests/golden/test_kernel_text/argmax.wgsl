// k00_argmax: out = argmax(x)
//   test_kernel_text.py:39: "argmax": lambda: functions.argmax(_x(6, 5), axis=1),
// x: f32[6, 5]   out: i32[6]
// serial: 1 invocation(s) per row, 8 row(s) per workgroup, scalar, 2 step(s) per trip; 144 bytes, 30 flops
@group(0) @binding(0) var<storage, read> t_x: array<f32>;
@group(0) @binding(1) var<storage, read_write> t_out: array<i32>;

// A number that no literal may be (infinity, NaN). The bits pass through a `let` in a function:
// as a constant expression both compilers would refuse them.
fn asg_from_bits(bits: u32) -> f32 {
    let copied = bits;
    return bitcast<f32>(copied);
}

// Compilers may assume that there is no NaN and fold `x != x` to false; the bits tell.
fn asg_isnan(x: f32) -> bool {
    return (bitcast<u32>(x) & u32(0x7fffffffu)) > u32(0x7f800000u);
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let row = (group.y * 1u + group.x) * 8u + thread;
    if (row >= 6u) {
        return; // no barriers below
    }
    var v_acc_out = f32(asg_from_bits(0xff800000u));
    var v_acc_out_at = i32(-1);
    // Adding `group.z`, which is 0, hides the count from the driver: it would unroll the loop and
    // take seconds to compile.
    for (var k = 0u; k < 4u + group.z; k += 2u) {
        let v_x = t_x[row * 5u + k];
        let v_element = v_x;
        let v_take = (((v_element > v_acc_out) & !asg_isnan(v_acc_out)) | (asg_isnan(v_element) & !asg_isnan(v_acc_out))) | (v_acc_out_at < i32(0));
        v_acc_out = select(v_acc_out, v_element, v_take);
        v_acc_out_at = select(v_acc_out_at, i32(k), v_take);
        let v_x_1 = t_x[row * 5u + k + 1u];
        let v_element_1 = v_x_1;
        let v_take_1 = (((v_element_1 > v_acc_out) & !asg_isnan(v_acc_out)) | (asg_isnan(v_element_1) & !asg_isnan(v_acc_out))) | (v_acc_out_at < i32(0));
        v_acc_out = select(v_acc_out, v_element_1, v_take_1);
        v_acc_out_at = select(v_acc_out_at, i32(k + 1u), v_take_1);
    }
    let v_x_2 = t_x[row * 5u + 4u];
    let v_element_2 = v_x_2;
    let v_take_2 = (((v_element_2 > v_acc_out) & !asg_isnan(v_acc_out)) | (asg_isnan(v_element_2) & !asg_isnan(v_acc_out))) | (v_acc_out_at < i32(0));
    v_acc_out = select(v_acc_out, v_element_2, v_take_2);
    v_acc_out_at = select(v_acc_out_at, i32(4u), v_take_2);
    let v_out = v_acc_out_at;
    t_out[row] = v_out;
}
