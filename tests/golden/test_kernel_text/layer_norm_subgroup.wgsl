// k00_sum_rsqrt_mul: out = sum → reshape → broadcast → mul → sub → maximum → add → rsqrt(x)
//   test_kernel_text.py:62: graph = asg.graph(outputs={"out": nn.functional.layer_norm(_x(6, 64), (64,))})
// x: f32[6, 64]   out: f32[6, 64]
// subgroup: 8 invocation(s) per row, 1 row(s) per workgroup, 4 elements at once, row in registers; 3,072 bytes, 2,754 flops
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
    let lane = thread % 8u;
    let wanted = (group.y * 6u + group.x) * 1u + thread / 8u;
    let row = wanted;
    var v_acc_sum_1 = vec4f(0.0f);
    let v_x = t_x[row * 16u + lane * 2u];
    v_acc_sum_1 = v_acc_sum_1 + v_x;
    let v_x_1 = t_x[row * 16u + lane * 2u + 1u];
    v_acc_sum_1 = v_acc_sum_1 + v_x_1;
    let v_sum_1_lane_xy = v_acc_sum_1.x + v_acc_sum_1.y;
    let v_sum_1_lane_zw = v_acc_sum_1.z + v_acc_sum_1.w;
    let v_sum_1_lane = v_sum_1_lane_xy + v_sum_1_lane_zw;
    let v_sum_1 = subgroupAdd(v_sum_1_lane);
    let v_mul_1 = v_sum_1 * 0.015625f;
    var v_acc_sum_2 = vec4f(0.0f);
    var v_acc_sum_3 = vec4f(0.0f);
    let v_sub_1 = v_x - vec4f(v_mul_1);
    let v_mul_3 = v_sub_1 * v_sub_1;
    v_acc_sum_2 = v_acc_sum_2 + v_sub_1;
    v_acc_sum_3 = v_acc_sum_3 + v_mul_3;
    let v_sub_1_1 = v_x_1 - vec4f(v_mul_1);
    let v_mul_3_1 = v_sub_1_1 * v_sub_1_1;
    v_acc_sum_2 = v_acc_sum_2 + v_sub_1_1;
    v_acc_sum_3 = v_acc_sum_3 + v_mul_3_1;
    let v_sum_2_lane_xy = v_acc_sum_2.x + v_acc_sum_2.y;
    let v_sum_2_lane_zw = v_acc_sum_2.z + v_acc_sum_2.w;
    let v_sum_2_lane = v_sum_2_lane_xy + v_sum_2_lane_zw;
    let v_sum_2 = subgroupAdd(v_sum_2_lane);
    let v_sum_3_lane_xy = v_acc_sum_3.x + v_acc_sum_3.y;
    let v_sum_3_lane_zw = v_acc_sum_3.z + v_acc_sum_3.w;
    let v_sum_3_lane = v_sum_3_lane_xy + v_sum_3_lane_zw;
    let v_sum_3 = subgroupAdd(v_sum_3_lane);
    let v_mul_2 = v_sum_2 * 0.015625f;
    let v_mul_4 = v_sum_3 * 0.015625f;
    let v_mul_5 = v_mul_2 * v_mul_2;
    let v_sub_2 = v_mul_4 - v_mul_5;
    let v_maximum_1 = asg_maximum(v_sub_2, 0.0f);
    let v_add_1 = v_maximum_1 + 0.00001f;
    let v_rsqrt_1 = inverseSqrt(v_add_1);
    let v_sub_3 = v_sub_1 - vec4f(v_mul_2);
    let v_out = v_sub_3 * vec4f(v_rsqrt_1);
    t_out[row * 16u + lane * 2u] = v_out;
    let v_sub_3_1 = v_sub_1_1 - vec4f(v_mul_2);
    let v_out_1 = v_sub_3_1 * vec4f(v_rsqrt_1);
    t_out[row * 16u + lane * 2u + 1u] = v_out_1;
}
