// k00_argmax: out = argmax(x)
//   test_kernel_text.py:48: "argmax": lambda: functions.argmax(_x(6, 5), axis=1),
// x: f32[6, 5]   out: i32[6]
// serial: 1 invocation(s) per row, 8 row(s) per workgroup, scalar, 2 step(s) per trip; 144 bytes, 30 flops
@group(0) @binding(0) var<storage, read> t_x: array<f32>;
@group(0) @binding(1) var<storage, read_write> t_out: array<i32>;

// Words in the order of the numbers: zeros are equal, and NaN is above all.
fn asg_order(x: f32) -> u32 {
    let word = bitcast<u32>(x);
    let size = word & u32(0x7fffffffu);
    let key = select(size | u32(0x80000000u), ~word, word > u32(0x80000000u));
    return select(key, u32(0xffffffffu), size > u32(0x7f800000u));
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let row = (group.y * 1u + group.x) * 8u + thread;
    if (row >= 6u) {
        return; // no barriers below
    }
    var v_acc_out = u32(0u);
    var v_acc_out_at = u32(0u);
    // Adding `group.z`, which is 0, hides the count from the driver: it would unroll the loop and
    // take seconds to compile.
    for (var k = 0u; k < 4u + group.z; k += 2u) {
        let v_x = t_x[row * 5u + k];
        let v_key = asg_order(v_x);
        let v_take = v_key > v_acc_out;
        v_acc_out = select(v_acc_out, v_key, v_take);
        v_acc_out_at = select(v_acc_out_at, k, v_take);
        let v_x_1 = t_x[row * 5u + k + 1u];
        let v_key_1 = asg_order(v_x_1);
        let v_take_1 = v_key_1 > v_acc_out;
        v_acc_out = select(v_acc_out, v_key_1, v_take_1);
        v_acc_out_at = select(v_acc_out_at, k + 1u, v_take_1);
    }
    let v_x_2 = t_x[row * 5u + 4u];
    let v_key_2 = asg_order(v_x_2);
    let v_take_2 = v_key_2 > v_acc_out;
    v_acc_out = select(v_acc_out, v_key_2, v_take_2);
    v_acc_out_at = select(v_acc_out_at, 4u, v_take_2);
    let v_out = i32(v_acc_out_at);
    t_out[row] = v_out;
}
