// k00_sum_rsqrt_mul: out = sum → reshape → broadcast → mul → sub → maximum → add → rsqrt(x)
//   test_kernel_text.py:62: graph = asg.graph(outputs={"out": nn.functional.layer_norm(_x(6, 64), (64,))})
// x: f32[6, 64]   out: f32[6, 64]
// serial: 1 invocation(s) per row, 8 row(s) per workgroup, 4 elements at once, 4 step(s) per trip; 3,072 bytes, 2,754 flops
@group(0) @binding(0) var<storage, read> t_x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> t_out: array<vec4<f32>>;

// Compilers may assume that there is no NaN and fold `x != x` to false; the bits tell.
fn asg_isnan(x: f32) -> bool {
    return (bitcast<u32>(x) & u32(0x7fffffffu)) > u32(0x7f800000u);
}

// NaN where either operand is, as NumPy; the built-in `max` returns the other operand. Where y is
// NaN no comparison holds, and it is y that is chosen.
fn asg_maximum(x: f32, y: f32) -> f32 {
    return select(y, x, (x > y) | asg_isnan(x));
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
    let row = (group.y * 1u + group.x) * 8u + thread;
    if (row >= 6u) {
        return; // no barriers below
    }
    var v_acc_sum_1 = vec4f(0.0f);
    // Adding `group.z`, which is 0, hides the count from the driver: it would unroll the loop and
    // take seconds to compile.
    for (var k = 0u; k < 8u + group.z; k += 2u) {
        let v_x = t_x[row * 16u + k * 2u];
        v_acc_sum_1 = v_acc_sum_1 + v_x;
        let v_x_1 = t_x[row * 16u + k * 2u + 1u];
        v_acc_sum_1 = v_acc_sum_1 + v_x_1;
        let v_x_2 = t_x[row * 16u + k * 2u + 2u];
        v_acc_sum_1 = v_acc_sum_1 + v_x_2;
        let v_x_3 = t_x[row * 16u + k * 2u + 3u];
        v_acc_sum_1 = v_acc_sum_1 + v_x_3;
    }
    let v_sum_1_xy = v_acc_sum_1.x + v_acc_sum_1.y;
    let v_sum_1_zw = v_acc_sum_1.z + v_acc_sum_1.w;
    let v_sum_1 = v_sum_1_xy + v_sum_1_zw;
    let v_mul_1 = v_sum_1 * 0.015625f;
    var v_acc_sum_2 = vec4f(0.0f);
    var v_acc_sum_3 = vec4f(0.0f);
    // Adding `group.z`, which is 0, hides the count from the driver: it would unroll the loop and
    // take seconds to compile.
    for (var k = 0u; k < 8u + group.z; k += 2u) {
        let v_x_4 = t_x[row * 16u + k * 2u];
        let v_sub_1 = v_x_4 - vec4f(v_mul_1);
        let v_mul_3 = v_sub_1 * v_sub_1;
        v_acc_sum_2 = v_acc_sum_2 + v_sub_1;
        v_acc_sum_3 = v_acc_sum_3 + v_mul_3;
        let v_x_5 = t_x[row * 16u + k * 2u + 1u];
        let v_sub_1_1 = v_x_5 - vec4f(v_mul_1);
        let v_mul_3_1 = v_sub_1_1 * v_sub_1_1;
        v_acc_sum_2 = v_acc_sum_2 + v_sub_1_1;
        v_acc_sum_3 = v_acc_sum_3 + v_mul_3_1;
        let v_x_6 = t_x[row * 16u + k * 2u + 2u];
        let v_sub_1_2 = v_x_6 - vec4f(v_mul_1);
        let v_mul_3_2 = v_sub_1_2 * v_sub_1_2;
        v_acc_sum_2 = v_acc_sum_2 + v_sub_1_2;
        v_acc_sum_3 = v_acc_sum_3 + v_mul_3_2;
        let v_x_7 = t_x[row * 16u + k * 2u + 3u];
        let v_sub_1_3 = v_x_7 - vec4f(v_mul_1);
        let v_mul_3_3 = v_sub_1_3 * v_sub_1_3;
        v_acc_sum_2 = v_acc_sum_2 + v_sub_1_3;
        v_acc_sum_3 = v_acc_sum_3 + v_mul_3_3;
    }
    let v_sum_2_xy = v_acc_sum_2.x + v_acc_sum_2.y;
    let v_sum_2_zw = v_acc_sum_2.z + v_acc_sum_2.w;
    let v_sum_2 = v_sum_2_xy + v_sum_2_zw;
    let v_sum_3_xy = v_acc_sum_3.x + v_acc_sum_3.y;
    let v_sum_3_zw = v_acc_sum_3.z + v_acc_sum_3.w;
    let v_sum_3 = v_sum_3_xy + v_sum_3_zw;
    let v_mul_2 = v_sum_2 * 0.015625f;
    let v_mul_4 = v_sum_3 * 0.015625f;
    let v_mul_5 = v_mul_2 * v_mul_2;
    let v_sub_2 = v_mul_4 - v_mul_5;
    let v_maximum_1 = asg_maximum(v_sub_2, 0.0f);
    let v_add_1 = v_maximum_1 + 0.00001f;
    let v_rsqrt_1 = inverseSqrt(v_add_1);
    // Adding `group.z`, which is 0, hides the count from the driver: it would unroll the loop and
    // take seconds to compile.
    for (var k = 0u; k < 8u + group.z; k += 2u) {
        let v_x_8 = t_x[row * 16u + k * 2u];
        let v_sub_1_4 = v_x_8 - vec4f(v_mul_1);
        let v_sub_3 = v_sub_1_4 - vec4f(v_mul_2);
        let v_out = v_sub_3 * vec4f(v_rsqrt_1);
        t_out[row * 16u + k * 2u] = v_out;
        let v_x_9 = t_x[row * 16u + k * 2u + 1u];
        let v_sub_1_5 = v_x_9 - vec4f(v_mul_1);
        let v_sub_3_1 = v_sub_1_5 - vec4f(v_mul_2);
        let v_out_1 = v_sub_3_1 * vec4f(v_rsqrt_1);
        t_out[row * 16u + k * 2u + 1u] = v_out_1;
        let v_x_10 = t_x[row * 16u + k * 2u + 2u];
        let v_sub_1_6 = v_x_10 - vec4f(v_mul_1);
        let v_sub_3_2 = v_sub_1_6 - vec4f(v_mul_2);
        let v_out_2 = v_sub_3_2 * vec4f(v_rsqrt_1);
        t_out[row * 16u + k * 2u + 2u] = v_out_2;
        let v_x_11 = t_x[row * 16u + k * 2u + 3u];
        let v_sub_1_7 = v_x_11 - vec4f(v_mul_1);
        let v_sub_3_3 = v_sub_1_7 - vec4f(v_mul_2);
        let v_out_3 = v_sub_3_3 * vec4f(v_rsqrt_1);
        t_out[row * 16u + k * 2u + 3u] = v_out_3;
    }
}
